"""Every exception that Callsheet raises, one tree:

CallsheetError
├── UsageError             a request that can't be met: flag, backend, folder, spec
├── GraphError             a program that is declared wrongly
│   ├── NameTaken          two nodes of one name
│   ├── ArgumentError      the arguments don't fit the constructor
│   ├── EdgeError          a handle to the wrong kind of service
│   ├── NotPicklable       an argument that can't travel to its node
│   └── NotLaunched        a handle that is used outside of a running program
├── CourierError           a call between nodes went wrong
│   ├── Unavailable        never sent: may be tried again
│   ├── ConnectionLost     sent, may have run: the caller decides
│   ├── DeadlineExceeded   no answer in time (also a TimeoutError)
│   ├── AuthError          one side does not hold the program's secret
│   ├── CallCancelled      this side is stopping
│   ├── NoSuchMethod       the service has no such public method
│   ├── NotSendable        an argument or a result that can't be pickled
│   └── RemoteError        the handler's exception could not itself be sent
├── EnvironmentFailed      an environment raised something, or showed NaN
├── UnknownSource          a replay has not seen whose time steps these are
├── ReplayTimeout          the limiter let nobody pass in time (also a TimeoutError)
└── NodeFailed             a program ended because one of its nodes did

A handler's own exception arrives as its own type, caused by a `RemoteTraceback`.
"""

from __future__ import annotations


class CallsheetError(Exception):
  """The root of the tree."""


class UsageError(CallsheetError):
  """A request that can't be met; its message is one line that names the way out."""


class GraphError(CallsheetError):
  """A program that is declared wrongly."""


class NameTaken(GraphError):
  """Two nodes of one name."""


class ArgumentError(GraphError, TypeError):
  """The arguments don't fit the node's constructor."""


class EdgeError(GraphError, TypeError):
  """A handle to the wrong kind of service."""


class NotPicklable(GraphError, TypeError):
  """An argument that can't travel to its node."""


class NotLaunched(GraphError):
  """A handle that is used outside of a running program."""


class CourierError(CallsheetError):
  """A call between nodes went wrong.

  Attributes:
    peer: the name of the node that was called, where it is known.
  """

  def __init__(self, message: str, peer: str = '') -> None:
    super().__init__(message, peer)
    self.peer = peer

  def __str__(self) -> str:
    return str(self.args[0])


class Unavailable(CourierError, ConnectionError):
  """The call was never sent: it may be tried again."""


class ConnectionLost(CourierError, ConnectionError):
  """The call was sent and may have run: the caller decides."""


class DeadlineExceeded(CourierError, TimeoutError):
  """No answer came in time."""


class AuthError(CourierError):
  """One side does not hold the program's secret."""


class CallCancelled(CourierError):
  """This side is stopping and has given up on the call."""


class NoSuchMethod(CourierError, AttributeError):
  """The service has no such public method."""


class NotSendable(CourierError, TypeError):
  """An argument or a result can't be pickled."""


class RemoteError(CourierError):
  """The handler's exception could not itself be sent; this holds its text."""


class RemoteTraceback(Exception):
  """The `__cause__` of an exception that a handler raised: the traceback over there."""

  def __init__(self, text: str) -> None:
    super().__init__(text)
    self.text = text

  def __str__(self) -> str:
    return f'\n\n{self.text}'


class EnvironmentFailed(CallsheetError):
  """An environment raised something, its cause, or showed what is no finite number."""


class UnknownSource(CallsheetError, ValueError):
  """Time steps of a source that has not begun at this replay, or before its restart."""


class ReplayTimeout(CallsheetError, TimeoutError):
  """A table's limiter held a writer or a sampler back for longer than it would wait.

  Attributes:
    done: items that were stored, or drawn and counted, before the time was up.
  """

  def __init__(self, message: str, done: int = 0) -> None:
    super().__init__(message, done)
    self.done = done

  def __str__(self) -> str:
    return str(self.args[0])


class NodeFailed(CallsheetError):
  """A program ended because one of its nodes did.

  Attributes:
    node: the name of the node that failed first.
    reason: one line: the exception, or how the process ended.
    traceback: the node's traceback, empty if it had no chance to give one.
    log: where its output is, empty where there is no file.
    refused: it raised a `UsageError`; the reason is its message and says it all.
  """

  def __init__(
    self,
    node: str,
    reason: str,
    traceback: str = '',
    log: str = '',
    refused: bool = False,
  ) -> None:
    super().__init__(node, reason, traceback, log, refused)
    self.node, self.reason, self.traceback, self.log = node, reason, traceback, log
    self.refused = refused

  def __str__(self) -> str:
    where = f'\nIts log: {self.log}' if self.log and not self.refused else ''
    trace = f'\n{self.traceback.rstrip()}' if self.traceback else ''
    return f'node {self.node!r} failed: {self.reason}{trace}{where}'
