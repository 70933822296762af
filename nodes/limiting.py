"""The law by which a table lets writers and samplers pass, one item at a time.

With I items inserted so far, S drawn, n stored, r samples per insert, a minimal size m
and an error buffer E (in samples), and D = r I - S, the samples that are owed:

  one more insert passes  <=>  n + 1 <= m   or   D + r <= r m + E
  one more sample passes  <=>  n >= m       and  D - 1 >= r m - E

It is dm-reverb's `SampleToInsertRatio` (https://arxiv.org/abs/2102.04736), kept by
every engine. A block is stored and a batch is drawn as far as the law allows and waits
for the rest, so neither has to fit into the buffer whole. What must hold is that the
two sides never wait for each other: D + r > r m + E and D - 1 < r m - E have no common
D if and only if

  2 E >= 1 + r,

and the first insert and the first sample behind the minimal size need E >= r and
E >= 1. `E >= max(1, r)` gives all three. A program whose only thread first writes N
items and then draws B has nobody to end its wait: it needs E >= max(r N, B).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from callsheet.agents.base import Limiter

LimiterState = Literal['open', 'filling', 'learner waits', 'actors wait']


def error_buffer(limiter: Limiter) -> float:
  """E: the one declared, else a tenth of the minimal size, as small as E may be.

  Returns:
    samples; inf for a limiter without `samples_per_insert`.
  """
  ratio = limiter.samples_per_insert
  if ratio is None:
    return math.inf
  if limiter.error_buffer is not None:
    return float(limiter.error_buffer)
  return max(0.1 * limiter.min_size * ratio, smallest_error_buffer(ratio))


def smallest_error_buffer(samples_per_insert: float) -> float:
  """The least E with which actors and learners never wait for each other."""
  return max(1.0, samples_per_insert)


@dataclass(frozen=True)
class Standing:
  """Where a table stands under its law.

  Attributes:
    size: items stored.
    inserted: items written so far.
    sampled: items drawn so far.
  """

  size: int
  inserted: int
  sampled: int


def credit(limiter: Limiter, at: Standing) -> float:
  """How many samples pass before a sampler has to wait; inf without a bound."""
  if at.size < limiter.min_size:
    return 0.0
  ratio = limiter.samples_per_insert
  if ratio is None:
    return math.inf
  lowest = ratio * limiter.min_size - error_buffer(limiter)

  def passes(n: int) -> bool:
    return ratio * at.inserted - (at.sampled + n - 1) - 1 >= lowest

  return float(_most(passes, ratio * at.inserted - at.sampled - lowest))


def room(limiter: Limiter, at: Standing) -> float:
  """How many inserts pass before a writer has to wait; inf without a bound."""
  ratio = limiter.samples_per_insert
  if ratio is None:
    return math.inf
  highest = ratio * limiter.min_size + error_buffer(limiter)

  def passes(n: int) -> bool:
    return (at.inserted + n) * ratio - at.sampled <= highest

  most = _most(passes, (highest + at.sampled) / ratio - at.inserted)
  return float(max(most, limiter.min_size - at.size))


def _most(passes: Callable[[int], bool], about: float) -> int:
  # The law itself decides, in its own rounding: one item more or less would be a wait
  # that nothing ends.
  most = max(0, math.floor(about) + 1)
  while most > 0 and not passes(most):
    most -= 1
  return most


def state(limiter: Limiter, at: Standing) -> LimiterState:
  """Who would have to wait now."""
  if at.size < limiter.min_size:
    return 'filling'
  if credit(limiter, at) < 1:
    return 'learner waits'
  if room(limiter, at) < 1:
    return 'actors wait'
  return 'open'
