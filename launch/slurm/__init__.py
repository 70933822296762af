"""Programs as one heterogeneous job of Slurm, a component per kind of node."""

from __future__ import annotations

from callsheet.launch.slurm.backend import Slurm

__all__ = ['Slurm']
