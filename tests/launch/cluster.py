"""The small cluster of `pods`, as a test has it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from callsheet.launch.kubernetes.backend import Kubernetes
from tests.launch.namespaces import Network
from tests.launch.pods import delete


class Cluster:
  """A folder that the command below is given, and what is in it."""

  def __init__(self, folder: Path) -> None:
    self.folder, self.network = folder, Network.make(folder)

  def backend(self, **options: Any) -> Kubernetes:
    """The backend, its image this checkout."""
    root = Path(__file__).parents[2]
    return Kubernetes(
      **{
        'image': 'this-checkout',
        'python': sys.executable,
        'python_path': (str(root / 'src'), str(root)),
        'kubectl': (sys.executable, '-c', _MAIN, str(self.folder)),
        'user': None,
        'grace': 10,
        **options,
      }
    )

  def status(self, job: str) -> str:
    """How a JobSet has ended; empty before."""
    file = self.folder / f'{job}.status'
    return file.read_text() if file.exists() else ''

  def end(self, job: str) -> str:
    """Waits for a JobSet's end, gives its status, and deletes it."""
    self.wait_for(lambda: self.status(job) != '', job)
    status = self.status(job)
    self.delete(job)
    return status

  def wait_for(self, condition: Callable[[], bool], job: str) -> None:
    """Waits while a JobSet runs; pods take their time to start on two cores."""
    until = time.monotonic() + 90
    while not condition():
      logs = [file.read_text() for file in self.folder.glob(f'{job}-*.log')]
      assert time.monotonic() < until, '\n'.join(logs)
      time.sleep(0.05)

  def delete(self, job: str) -> None:
    """As `kubectl delete jobset`."""
    delete(self.folder, job)

  def vanish(self, index: int) -> None:
    """Kills all that runs in one pod."""
    for pid in self.network.pids(index):
      os.kill(pid, signal.SIGKILL)

  def log(self, pod: str) -> str:
    """What a pod has printed."""
    return (self.folder / f'{pod}.log').read_text()

  def close(self) -> None:
    """Deletes what is left, and the network."""
    for file in self.folder.glob('*.jobset'):
      delete(self.folder, file.stem)
    self.network.close()


_MAIN = 'from tests.launch.pods import main; main()'
