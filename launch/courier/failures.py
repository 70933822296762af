"""A handler's exception on its way to the caller."""

from __future__ import annotations

import pickle
import traceback

from callsheet.errors import RemoteError, RemoteTraceback
from callsheet.launch.courier.pickling import Pickled, dumps, loads


def pack(error: BaseException, method: str) -> Pickled:
  """The exception with its traceback's text; it can always be sent.

  One that is not an `Exception`, such as SystemExit, is sent as text alone: it must not
  end the caller.
  """
  try:
    text = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
  except Exception:
    text = f'{type(error).__name__} (its traceback could not be printed)'
  summary = f'{method} raised {text.strip().splitlines()[-1]}'
  exact: bytes | None = None
  if isinstance(error, Exception):
    try:
      chunks, buffers = dumps(error)
      exact = None if buffers else b''.join(chunks)
    except Exception:
      exact = None
  return [pickle.dumps((summary, text, exact))], []


def unpack(body: memoryview, peer: str) -> Exception:
  """The exception to raise here, its cause being the traceback over there."""
  summary, text, exact = loads(body, ())
  error: object = None
  if exact is not None:
    try:
      error = loads(exact, ())
    except Exception:
      error = None
  if not isinstance(error, Exception):
    error = RemoteError(
      f'{summary} in {peer!r}; the exception itself can not be sent', peer
    )
  error.__cause__ = RemoteTraceback(text)
  return error
