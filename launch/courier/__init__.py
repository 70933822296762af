"""Calls between nodes: `Server` at one end, `connect` at the other.

Only the standard library; nothing is unpickled before both sides have proved that they
hold the program's secret. The connection itself is neither encrypted nor signed:
between hosts it belongs into a network that is trusted.
"""

from __future__ import annotations

from callsheet.launch.courier.client import (
  Client,
  RemoteMethod,
  cancel_blocking,
  close,
  connect,
  control,
  peer,
  records,
  statistics,
)
from callsheet.launch.courier.deadlines import suspend_deadlines
from callsheet.launch.courier.server import Server
from callsheet.launch.courier.statistics import MethodStatistics, Record, percentiles

__all__ = [
  'Client',
  'MethodStatistics',
  'Record',
  'RemoteMethod',
  'Server',
  'cancel_blocking',
  'close',
  'connect',
  'control',
  'peer',
  'percentiles',
  'records',
  'statistics',
  'suspend_deadlines',
]
