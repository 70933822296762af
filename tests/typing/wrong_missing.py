from services import Learner, Replay, make_replay

from callsheet import Program

program = Program('wrong')
program.add('replay', Replay)  # error: call-arg
replay = program.add('replay', make_replay)
program.add('learner', Learner, replay)  # error: call-arg
