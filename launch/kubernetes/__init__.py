"""Programs as a JobSet of Kubernetes, a replicated job per group of nodes."""

from __future__ import annotations

from callsheet.launch.kubernetes.backend import Kubernetes

__all__ = ['Kubernetes']
