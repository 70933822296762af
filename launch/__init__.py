"""How a program runs: backends, the supervisor, and the courier between nodes."""

from callsheet.launch.crew import Backend, Crew
from callsheet.launch.kubernetes.backend import Kubernetes
from callsheet.launch.launching import BACKENDS, backend_of, launch, start
from callsheet.launch.processes import Processes
from callsheet.launch.ray.backend import Ray
from callsheet.launch.slurm.backend import Slurm
from callsheet.launch.ssh import Ssh
from callsheet.launch.supervisor import Running
from callsheet.launch.terminal import Terminal
from callsheet.launch.threads import Threads

__all__ = [
  'BACKENDS',
  'Backend',
  'Crew',
  'Kubernetes',
  'Processes',
  'Ray',
  'Running',
  'Slurm',
  'Ssh',
  'Terminal',
  'Threads',
  'backend_of',
  'launch',
  'start',
]
