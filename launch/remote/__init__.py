"""Units on other hosts: their workers sign on at the launcher's desk.

An engine (ssh, Slurm, Ray, ...) only has to start a worker somewhere and to end it.
What is said between supervisor and worker is the same for all of them.
"""

from __future__ import annotations

from callsheet.launch.remote.crew import Engine, RemoteCrew
from callsheet.launch.remote.ticket import Ticket

__all__ = ['Engine', 'RemoteCrew', 'Ticket']
