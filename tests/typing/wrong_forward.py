from services import Counter, Learner, Replay, Worker

from callsheet import Program

program = Program('wrong')
later = program.forward('later', Replay)
program.add('worker', Worker, later)  # error: arg-type
program.add('learner', Learner, later, later)  # error: arg-type
counter: Counter = program.forward('other', Replay)  # error: assignment
