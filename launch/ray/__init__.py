"""Programs as actors of Ray, in one placement group."""

from __future__ import annotations

from callsheet.launch.ray.backend import Ray

__all__ = ['Ray']
