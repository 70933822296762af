"""What stands around an optimizer in every agent that clips its gradients."""

from __future__ import annotations

import optax


def clipped(
  optimizer: optax.GradientTransformation, max_norm: float | None
) -> optax.GradientTransformation:
  """An optimizer of all parameters as one vector, whose global norm is clipped.

  Flat, an update is one pass over them instead of a few operations for each array.

  Args:
    optimizer: gets the clipped gradients.
    max_norm: None for no clipping.
  """
  clip = optax.identity() if max_norm is None else optax.clip_by_global_norm(max_norm)
  return optax.flatten(optax.chain(clip, optimizer))
