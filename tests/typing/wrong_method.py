from services import Counter

from callsheet import Program, call_async

program = Program('wrong')
counter = program.add('counter', Counter)
counter.incremnt(3)  # error: attr-defined
call_async(counter.incremnt, 3)  # error: attr-defined
call_async(counter.increment, '3')  # error: arg-type
