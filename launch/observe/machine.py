"""What a process takes of its machine; from /proc, which costs microseconds."""

from __future__ import annotations

import os
import sys
import time


def cpu_seconds() -> float:
  """CPU time of this process, all its threads together."""
  return time.process_time()


def memory() -> int | None:
  """Bytes of this process that are in memory; None where there is no /proc."""
  try:
    with open('/proc/self/statm') as file:
      pages = int(file.read().split()[1])
  except OSError:
    return None
  return pages * os.sysconf('SC_PAGE_SIZE')


def gpu_memory() -> int | None:
  """Bytes that JAX holds on this process's accelerators; None if it has none.

  A process that has not begun to use JAX does not begin to here.
  """
  bridge = sys.modules.get('jax._src.xla_bridge')  # There is no public way to ask.
  initialized = getattr(bridge, 'backends_are_initialized', None)
  if initialized is None or not initialized():
    return None
  taken = [
    (device.memory_stats() or {}).get('bytes_in_use')
    for device in sys.modules['jax'].local_devices()
    if device.platform != 'cpu'
  ]
  known = [int(bytes_in_use) for bytes_in_use in taken if bytes_in_use is not None]
  return sum(known) if known else None
