from services import Boss, Counter, Learner, Replay, Worker, make_replay

from callsheet import Program

program = Program('wrong')
counter = program.add('counter', Counter)
replay = program.add('replay', make_replay)
program.add('worker', Worker, replay)  # error: arg-type
program.add('learner', Learner, counter, replay)  # error: arg-type, arg-type
program.add('learner', Learner, replay, counter=replay)  # error: arg-type
program.add('boss', Boss, counter)  # error: arg-type
program.add('boss', Boss, [program.add('worker', Worker), counter])  # error: list-item
other: Replay = program.add('other', Counter)  # error: assignment
