from services import Counter, Worker

from callsheet import Program

program = Program('wrong')
counter = program.add('counter', Counter)
program.add('worker', Worker, counter, sed=1)  # error: call-arg
program.add('worker', Worker, counter, 1, 2)  # error: call-arg
program.add('worker', Worker, counter, seed='one')  # error: arg-type
