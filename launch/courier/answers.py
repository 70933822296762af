"""One call at the service's side: unpickle, run the handler, send what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from callsheet import results
from callsheet.errors import NotSendable
from callsheet.launch.courier import failures, wire
from callsheet.launch.courier.methods import Method
from callsheet.launch.courier.pickling import Pickled, dumps, loads


def answer(
  channel: wire.Channel, methods: Sequence[Method], message: wire.Message, name: str
) -> None:
  """Runs the handler that the message calls and sends its result or its exception.

  Args:
    channel: where the message came from.
    methods: what the service has, as it was told to the caller.
    message: a call.
    name: the node's name.

  Raises:
    Malformed: the message is no call.
    OSError: the caller is gone.
  """
  kind, index, body, buffers, size = message
  del message
  if kind != wire.CALL or index >= len(methods):
    raise wire.Malformed
  method = methods[index]
  begun = ended = time.monotonic()
  method.record.begin(begun)
  sent, failed = 0, True
  try:
    try:
      args, kwargs = _arguments(body, buffers, method, name)
      del body, buffers
      results.reserve_by(channel.reserve)
      result = method.function(*args, **kwargs)
      del args, kwargs
      reply = _result(result, method, name)
      kind = wire.RESULT
      failed = False
    except BaseException as error:
      kind, reply = wire.ERROR, failures.pack(error, f'{name}.{method.name}')
    ended = time.monotonic()
    sent = channel.send(kind, 0, reply, None)
  finally:
    results.reserve_by(None)
    channel.release()
    method.record.end(ended, ended - begun, size, sent, failed)


def _arguments(
  body: memoryview, buffers: Sequence[memoryview], method: Method, name: str
) -> tuple[tuple[object, ...], dict[str, object]]:
  try:
    args, kwargs = loads(body, buffers)
    return args, kwargs
  except Exception as error:
    raise NotSendable(
      f'the arguments of {name}.{method.name} can not be unpickled there: '
      f'{type(error).__name__}: {error}',
      name,
    ) from error


def _result(result: object, method: Method, name: str) -> Pickled:
  try:
    reply = dumps(result)
    if reply[1] or len(reply[0]) > 1:
      wire.check_size(reply)
    return reply
  except Exception as error:
    raise NotSendable(
      f'the result of {name}.{method.name} (a {type(result).__name__}) can not be '
      f'sent: {type(error).__name__}: {error}',
      name,
    ) from error
