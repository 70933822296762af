from concurrent.futures import Future

from services import Counter

from callsheet import call_async, with_deadline


def with_client(counter: Counter) -> None:
  future: Future[str] = call_async(counter.increment, 3)  # error: arg-type
  total: str = call_async(counter.increment).result()  # error: assignment
  text: str = with_deadline(counter.increment, 1.0)()  # error: assignment
  print(future, total, text)
