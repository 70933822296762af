"""The law by which a table lets writers and samplers pass, one item at a time.

With I items inserted so far, S drawn, n stored, r samples per insert, a minimal size m,
and D = r I - S, the samples that are owed and held from `lowest` to `highest`:

  one more insert passes  <=>  n + 1 <= m   or   D + r <= highest
  one more sample passes  <=>  n >= m       and  D - 1 >= lowest

It is dm-reverb's law (https://arxiv.org/abs/2102.04736), kept by every engine. Note
that the first part of it asks for what is in the table: items that left don't count,
and where items leave so that n < m, writers pass again whatever D is. Its limiters:

  MinSize: `Limiter(m)`
    lowest = -inf, highest = inf: an insert always passes, a sample where n >= m.
  SampleToInsertRatio: `Limiter(m, r, E)`, an error buffer E in samples
    lowest = r m - E, highest = r m + E.
  SampleToInsertRatio with its bounds: `Limiter(m, r, (lowest, highest))`.
  Queue: `Limiter.queue(size)`, and Stack: `Limiter.stack(size)`
    m = r = 1, lowest = 0, highest = size: an insert passes where n = 0 or
    I + 1 - S <= size, a sample where n >= 1 and I - S >= 1. In `Table.queue` and
    `Table.stack` each item is drawn once, so that n = I - S: an insert passes where
    n < size, a sample where n > 0.

A block is stored and a batch is drawn as far as the law allows and waits for the rest,
so neither has to fit between the bounds whole. What must hold is that the two sides
never wait for each other: D + r > highest and D - 1 < lowest have no common D if

  highest - lowest >= 1 + r,

or, where all three are whole numbers and so D is, if highest - lowest >= r. With an
error buffer, the first insert and the first sample behind the minimal size need E >= r
and E >= 1; `E >= max(1, r)` gives all three. A program whose only thread first writes N
items and then draws B has nobody to end its wait: it needs r N <= highest (or N <= m)
and r N - B >= lowest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from callsheet.agents.base import Limiter

LimiterState = Literal['open', 'filling', 'learner waits', 'actors wait']


class Bounds(NamedTuple):
  """From where to where `samples_per_insert * inserted - sampled` may be."""

  lowest: float
  highest: float


def bounds(limiter: Limiter) -> Bounds:
  """Those declared; else a tenth of the minimal size, as narrow as they may be."""
  ratio, buffer = limiter.samples_per_insert, limiter.error_buffer
  if ratio is None:
    return Bounds(-math.inf, math.inf)
  if isinstance(buffer, tuple):
    return Bounds(float(buffer[0]), float(buffer[1]))
  if buffer is None:
    buffer = max(0.1 * limiter.min_size * ratio, smallest_error_buffer(ratio))
  middle = ratio * limiter.min_size
  return Bounds(middle - buffer, middle + buffer)


def smallest_error_buffer(samples_per_insert: float) -> float:
  """The least E with which actors and learners never wait for each other."""
  return max(1.0, samples_per_insert)


def smallest_distance(samples_per_insert: float, within: Bounds) -> float:
  """How far the bounds must at least be apart for the same."""
  whole = all(float(x).is_integer() for x in (samples_per_insert, *within))
  return samples_per_insert if whole else 1 + samples_per_insert


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


def owed(limiter: Limiter, at: Standing) -> float:
  """D of the law; 0 without `samples_per_insert`."""
  ratio = limiter.samples_per_insert
  return 0.0 if ratio is None else ratio * at.inserted - at.sampled


def credit(limiter: Limiter, at: Standing) -> float:
  """How many samples pass before a sampler has to wait; inf without a bound."""
  if at.size < limiter.min_size:
    return 0.0
  ratio = limiter.samples_per_insert
  if ratio is None:
    return math.inf
  lowest = bounds(limiter).lowest

  def passes(n: int) -> bool:
    return ratio * at.inserted - (at.sampled + n - 1) - 1 >= lowest

  return float(_most(passes, ratio * at.inserted - at.sampled - lowest))


def passing_samples(limiter: Limiter, max_times_sampled: int, at: Standing) -> float:
  """`credit`, as far as no draw can bring the table below the minimal size."""
  passing = credit(limiter, at)
  # Each draw may be its item's last.
  most = at.size - limiter.min_size + 1
  return min(passing, most) if max_times_sampled else passing


def room(limiter: Limiter, at: Standing) -> float:
  """How many inserts pass before a writer has to wait; inf without a bound."""
  ratio = limiter.samples_per_insert
  if ratio is None:
    return math.inf
  highest = bounds(limiter).highest

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
