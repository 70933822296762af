"""Program graphs for reinforcement learning: declare once, launch anywhere."""

from callsheet.calls import blocking, call_async, with_deadline
from callsheet.errors import (
  CallsheetError,
  ConnectionLost,
  CourierError,
  DeadlineExceeded,
  GraphError,
  NodeFailed,
  RemoteError,
  Unavailable,
  UsageError,
)
from callsheet.programs import (
  Always,
  Never,
  Node,
  OnFailure,
  Program,
  Resources,
  Silence,
)

__all__ = [
  'Always',
  'CallsheetError',
  'ConnectionLost',
  'CourierError',
  'DeadlineExceeded',
  'GraphError',
  'Never',
  'Node',
  'NodeFailed',
  'OnFailure',
  'Program',
  'RemoteError',
  'Resources',
  'Silence',
  'Unavailable',
  'UsageError',
  'blocking',
  'call_async',
  'with_deadline',
]
