from concurrent.futures import Future

from services import Boss, Counter, Counts, Learner, Replay, Worker, make_replay

from callsheet import Node, Program, Resources, call_async, with_deadline

program = Program('right')
counter: Counter = program.add('counter', Counter)
replay: Replay = program.add('replay', make_replay, size=3)
learner = program.add(
  Node('learner', resources=Resources(gpus=1)), Learner, replay, counter
)
again: Learner = program.add('again', Learner, replay=replay, counter=counter, rate=0.1)
with program.group('worker'):
  workers = [program.add('worker', Worker, counter, seed=i) for i in range(2)]
  workers.append(program.add('worker', Worker))
program.add('boss', Boss, workers, named={'a': counter})
later = program.forward('later', Counter)
program.add('early', Worker, later)
program.add('later', Counter)


def with_clients(counter: Counts, learner: Learner) -> list[float]:
  future: Future[int] = call_async(counter.increment, 3)
  params: Future[list[float]] = call_async(learner.params)
  total: int = future.result() + with_deadline(counter.increment, 5.0)(amount=2)
  return [*params.result(), total]
