"""Calls between nodes: `Server` at one end, `connect` at the other.

A call runs at most once: what may have run is never sent again by itself. A caller
whose connection is lost in the middle gets `ConnectionLost` and decides; with
`calls.retried` and `calls.lasting` it runs at least once, for what may run twice. What
is promised of each call is listed, and tested, in tests/chaos.

Only the standard library; nothing is unpickled before both sides have proved that they
hold the program's secret. The connection itself is neither encrypted nor signed:
between hosts it belongs into a network that is trusted.
"""

from __future__ import annotations

from callsheet.launch.courier.client import (
  Client,
  RemoteMethod,
  activity,
  cancel_blocking,
  close,
  connect,
  control,
  peer,
  records,
  statistics,
)
from callsheet.launch.courier.deadlines import deadlines_suspended, suspend_deadlines
from callsheet.launch.courier.server import Server
from callsheet.launch.courier.statistics import MethodStatistics, Record, percentiles

__all__ = [
  'Client',
  'MethodStatistics',
  'Record',
  'RemoteMethod',
  'Server',
  'activity',
  'cancel_blocking',
  'close',
  'connect',
  'control',
  'deadlines_suspended',
  'peer',
  'percentiles',
  'records',
  'statistics',
  'suspend_deadlines',
]
