"""Time steps of B environments, and what items they make, one step at a time."""

from __future__ import annotations

import itertools

import numpy as np
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec, NStep
from callsheet.agents.step_tables import step_table

FIRST, MID, LAST = 0, 1, 2
EXTRAS = {'log_prob': specs.Array((), np.float32), 'carry': specs.Array((2,), np.int16)}


def spec(writes, height=2, channels=1):
  """Observations of 2 x 3 small frames, stacked as `writes` has it."""
  shape = [height, 3, channels]
  shape[writes.stack_axis] *= writes.num_stacked
  return EnvironmentSpec(
    specs.Array(tuple(shape), np.uint8), specs.DiscreteArray(9, np.int32)
  )


def table(writes, max_size=1000, channels=1, **options):
  options.setdefault('extras', EXTRAS)
  return step_table(spec(writes, channels=channels), writes, max_size, **options)


def play(seed, length, environments, end_rate=0.3, channels=1, extras=EXTRAS):
  """A stream `[T, B, ...]` by dm_env's law; FIRST everywhere at the beginning."""
  rng = np.random.default_rng(seed)
  shape = (length, environments)
  step_type = np.empty(shape, np.int32)
  for t in range(length):
    going = np.where(rng.random(environments) < end_rate, LAST, MID)
    begins = step_type[t - 1] == LAST if t else np.full(environments, True)
    step_type[t] = np.where(begins, FIRST, going)
  steps = {
    'step_type': step_type,
    'reward': np.where(step_type == FIRST, 0, rng.normal(size=shape)),
    'discount': np.where(step_type == LAST, rng.integers(0, 2, shape), 1),
    'observation': rng.integers(0, 256, (*shape, 2, 3, channels)),
    'action': rng.integers(0, 9, shape),
  }
  kinds = (np.int32, np.float32, np.float32, np.uint8, np.int32)
  steps = {name: v.astype(k) for (name, v), k in zip(steps.items(), kinds, strict=True)}
  for name, extra in extras.items():
    steps[name] = rng.normal(0, 99, (*shape, *extra.shape)).astype(extra.dtype)
  return steps


def cut(steps, *at):
  """The stream in blocks that begin at 0 and at these steps."""
  edges = [0, *sorted(at), len(steps['reward'])]
  return [
    {name: column[a:b] for name, column in steps.items()}
    for a, b in itertools.pairwise(edges)
  ]


class OneByOne:
  """Items of one environment after the other, by the letter of the declaration."""

  def __init__(self, declared, steps):
    self._writes, self._extras = declared.steps.writes, declared.steps.extras
    self._steps = steps
    length, environments = steps['reward'].shape
    self._items, self._by_step = [], [0]
    for t in range(length):
      for b in range(environments):
        if isinstance(self._writes, NStep):
          self._end_transitions(t, b)
        else:
          self._end_sequence(t, b)
      self._by_step.append(len(self._items))

  def items(self):
    """One mapping of columns an item, in the order in which they are complete."""
    return self._items

  def complete(self, steps):
    """How many of them the first so many steps complete."""
    return self._by_step[steps]

  def _begin(self, t, b):
    while t >= 0 and self._steps['step_type'][t, b] != FIRST:
      t -= 1
    return t

  def _observation(self, t, b):
    begin, writes = self._begin(t, b), self._writes
    frames = [
      self._steps['observation'][max(begin, t - age), b]
      for age in reversed(range(writes.num_stacked))
    ]
    return np.concatenate(frames, axis=writes.stack_axis)

  def _end_transitions(self, t, b):
    begin, writes = self._begin(t, b), self._writes
    if begin < 0 or t == begin:
      return
    over = self._steps['step_type'][t, b] == LAST
    first = max(begin, t - writes.n_step)
    starts = (
      range(first, t) if over else range(t - writes.n_step, t - writes.n_step + 1)
    )
    for start in starts:
      if start < begin:
        continue
      reward, discount = np.float32(0), np.float32(1)
      for k in range(start + 1, t + 1):
        reward += discount * self._steps['reward'][k, b]
        discount *= np.float32(writes.discount) * self._steps['discount'][k, b]
      item = {
        'observation': self._observation(start, b),
        'action': self._steps['action'][start + 1, b],
        'reward': reward,
        'discount': discount,
        'next_observation': self._observation(t, b),
      }
      extras = {name: self._steps[name][start + 1, b] for name in self._extras}
      self._items.append({**item, **extras})

  def _end_sequence(self, t, b):
    writes = self._writes
    length, period = writes.sequence_length, writes.period
    begin, over = self._begin(t, b), self._steps['step_type'][t, b] == LAST
    if begin < 0:
      return
    if writes.cross_episodes:
      begin = int(np.argmax(self._steps['step_type'][:, b] == FIRST))
      over = False
    for start in range(begin, t, period):
      if start + length >= t:
        # A later one would show no step that this one doesn't.
        if start + length == t or over:
          self._items.append(self._sequence(start, t, b))
        return

  def _sequence(self, start, stop, b):
    writes, steps = self._writes, self._steps
    length = writes.sequence_length
    shown = [min(start + t, stop) for t in range(length + 1)]
    item = {
      'observation': np.stack([self._observation(t, b) for t in shown]),
      'step_type': np.array([steps['step_type'][t, b] for t in shown], np.int32),
    }
    mask = [
      start + t <= stop and steps['step_type'][start + t, b] != FIRST
      for t in range(1, length + 1)
    ]
    item['mask'] = np.array(mask)
    for name in ('action', 'reward', 'discount', *self._extras):
      column = steps[name]
      rows = [
        column[start + t, b] if there else np.zeros_like(column[0, b])
        for t, there in enumerate(mask, 1)
      ]
      item[name] = np.stack(rows)
    return item


def as_bytes(item):
  """An item that can be compared and hashed."""
  return tuple((name, np.asarray(item[name]).tobytes()) for name in sorted(item))


def stored(replay, name, most=4000):
  """All different items of a table, as bytes, in no order; by drawing many times."""
  sample = replay.sample(name, most)
  columns = {key: column[0] for key, column in sample.batch.data.items()}
  _, which = np.unique(sample.keys[0], return_index=True)
  return sorted(
    as_bytes({key: column[i] for key, column in columns.items()}) for i in which
  )


def drained(replay, name, count):
  """So many items of a table that hands each out once, as bytes, in its order."""
  columns = {}
  if count:
    columns = replay.sample(name, count, timeout=20).batch.data
  return [
    as_bytes({key: column[0, i] for key, column in columns.items()})
    for i in range(count)
  ]
