"""The actor whose table is fed with time steps: frames and extras, a call a block."""

from __future__ import annotations

import contextlib
import dataclasses
import threading

import dm_env
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec, NStep, Sampling, Sequences
from callsheet.agents.step_tables import step_columns, step_table
from callsheet.errors import CallCancelled, UsageError
from callsheet.nodes.actor import Actor
from callsheet.nodes.counter import Counter
from callsheet.nodes.environments import DmEnvVector
from callsheet.nodes.native_replay import NativeReplay
from tests.nodes.played import OneByOne, as_bytes, stored
from tests.nodes.small import Loop, Records, Source, Watched, eventually
from tests.nodes.small import agent as mean_agent

pytestmark = pytest.mark.timeout(60)

EXTRAS = {'total': specs.Array((), np.float32), 'twice': specs.Array((2,), np.int32)}


class Frames(dm_env.Environment):
  """Episodes of 1 to 9 steps that show their last frames, the newest last.

  Args:
    seed: of frames and episodes.
    writes: how many are stacked, and along which axis.
    fault: what it gets wrong: `first` shows nothing before an episode's beginning,
      `order` has the newest frame first, `skip` leaves every other frame out.
  """

  def __init__(self, seed, writes, fault=''):
    self._rng, self._writes, self._fault = np.random.default_rng(seed), writes, fault
    self._left = 0

  def reset(self):
    self._left = int(self._rng.integers(1, 10))
    frame = self._frame()
    self._frames = [frame] * self._writes.num_stacked
    if self._fault == 'first':
      self._frames[:-1] = [np.zeros_like(frame)] * (self._writes.num_stacked - 1)
    return dm_env.restart(self._show())

  def step(self, action):
    if not self._left:
      return self.reset()
    self._left -= 1
    for _ in range(2 if self._fault == 'skip' else 1):
      self._frames = [*self._frames[1:], self._frame()]
    reward = float(self._rng.normal())
    if self._left:
      return dm_env.transition(reward, self._show())
    if self._rng.random() < 0.5:
      return dm_env.truncation(reward, self._show())
    return dm_env.termination(reward, self._show())

  def _frame(self):
    return self._rng.integers(1, 256, (3, 5, 1), np.uint8)

  def _show(self):
    frames = self._frames[::-1] if self._fault == 'order' else self._frames
    return np.concatenate(frames, self._writes.stack_axis)

  def observation_spec(self):
    shape = [3, 5, 1]
    shape[self._writes.stack_axis] *= self._writes.num_stacked
    return specs.Array(tuple(shape), np.uint8)

  def action_spec(self):
    return specs.DiscreteArray(50, np.int32)


def policy(params, carry, observation, key):
  """The action depends on what is seen, extras and the carry on that."""
  total = jnp.sum(observation.astype(jnp.float32), axis=(1, 2, 3))
  action = (total % 47).astype(jnp.int32)
  extras = {'total': total, 'twice': jnp.stack([action, 2 * action], 1), 'other': total}
  return action, carry, extras


def agent(writes, extras=EXTRAS, policy=policy):
  environment = Frames(0, writes)
  spec = EnvironmentSpec(environment.observation_spec(), environment.action_spec())
  return dataclasses.replace(
    mean_agent(),
    spec=spec,
    policy=policy,
    writes=writes,
    samples=Sampling('t', 4),
    tables=(step_table(spec, writes, 5000, extras=extras),),
  )


class Appends:
  """In the replay's place: keeps the calls and hands them on to a real one."""

  def __init__(self, table, limit):
    self.replay, self._limit = NativeReplay([table]), limit
    self._cancelled = threading.Event()
    self.waits, self.calls = threading.Event(), []

  def append(self, table, source, steps, *, fresh=False):
    if len(self.calls) >= self._limit:
      self.waits.set()
      self._cancelled.wait()
      raise CallCancelled('this node is stopping')
    self.calls.append((table, source, steps, fresh))
    return self.replay.append(table, source, steps, fresh=fresh)

  def cancel(self):
    self._cancelled.set()


@contextlib.contextmanager
def acted(made_agent, calls=5, fault='', block_length=8):
  """An actor after so many calls of its replay, which is still open."""
  replay = Appends(made_agent.tables[0], calls)
  seen = []

  def make(count, seed):
    environments = [Frames(seed + i, made_agent.writes, fault) for i in range(count)]
    seen.append(Watched(DmEnvVector(environments)))
    return seen[-1]

  try:
    actor = Actor(
      made_agent,
      make,
      replay,
      Source(),
      Counter(),
      Records(),
      seed=7,
      num_environments=3,
      block_length=block_length,
    )
    with Loop(actor) as loop:
      eventually(lambda: replay.waits.is_set() or loop.ended.done())
      replay.cancel()
    error = loop.ended.exception(0)
    if error is not None and not isinstance(error, CallCancelled):
      raise error
    yield replay, seen[0]
  finally:
    replay.replay.close()


def played(environment, declared, length):
  """The stream of what was seen, of the newest frames alone."""
  writes = declared.steps.writes
  time_steps = environment.time_steps[:length]
  steps = {
    name: np.stack([np.asarray(getattr(t, name)) for t in time_steps])
    for name in ('step_type', 'reward', 'discount')
  }
  whole = np.stack([t.observation for t in time_steps])
  axis = 2 + writes.stack_axis % 3
  steps['observation'] = np.split(whole, writes.num_stacked, axis)[-1]
  total = whole[:-1].sum(axis=(2, 3, 4)).astype(np.float32)
  action = np.stack(environment.actions[: length - 1])
  led = {'action': action, 'total': total, 'twice': np.stack([action, 2 * action], -1)}
  for name in ('action', *declared.steps.extras):
    steps[name] = np.concatenate([np.zeros_like(led[name][:1]), led[name]])
  return steps


WRITES = [
  NStep('t', 3, 0.9, num_stacked=4),
  NStep('t', 1, 0.9, num_stacked=2, stack_axis=0),
  NStep('t', 2, 0.9),
  Sequences('t', 5, 3, num_stacked=3, stack_axis=1),
  Sequences('t', 4, 4, cross_episodes=True, num_stacked=2),
]


@pytest.mark.parametrize('writes', WRITES, ids=str)
@pytest.mark.parametrize('block_length', [1, 8])
def test_the_replay_has_what_was_played(writes, block_length):
  made = agent(writes)
  calls = 40 // block_length
  with acted(made, calls, block_length=block_length) as (replay, environment):
    assert len(replay.calls) == calls
    assert [call[:2] for call in replay.calls] == [('t', 7)] * calls
    assert [call[3] for call in replay.calls] == [True] + [False] * (calls - 1)
    columns = step_columns(made.tables[0].steps)
    for number, (_, _, steps, _) in enumerate(replay.calls):
      # The first one has the reset as well.
      length = block_length + (number == 0)
      for name, spec in columns.items():
        assert steps[name].shape == (length, 3, *spec.shape)
        assert steps[name].dtype == spec.dtype
    stream = played(environment, made.tables[0], 41)
    items = OneByOne(made.tables[0], stream).items()
    assert len(items) > 10
    assert stored(replay.replay, 't') == sorted(map(as_bytes, items))


@pytest.mark.parametrize('fault', ['first', 'order', 'skip'])
@pytest.mark.parametrize('block_length', [1, 8])
def test_what_is_no_stack_is_refused(fault, block_length):
  message = r"'t': an observation \[3, 5, 4\] is no stack of 4 .*num_stacked=1"
  acting = acted(agent(WRITES[0]), 9, fault, block_length=block_length)
  with pytest.raises(ValueError, match=message), acting:
    pass


@pytest.mark.parametrize('fault', ['first', 'order', 'skip'])
def test_any_observations_will_do_that_are_not_declared_as_stacks(fault):
  writes = dataclasses.replace(WRITES[0], num_stacked=1)
  made = agent(WRITES[0])
  table = step_table(made.spec, writes, 5000, extras=EXTRAS)
  shown = dataclasses.replace(made, tables=(table,))
  with acted(shown, 3, fault) as (replay, _):
    assert replay.replay.statistics()['t'].size > 5


@pytest.mark.parametrize('extras', [(), {'total': 0.0}, 3])
def test_extras_that_are_not_given_are_missed(extras):
  def without(params, carry, observation, key):
    action, carry, given = policy(params, carry, observation, key)
    return action, carry, {'total': given['total']} if extras else extras

  message = r"'t': the policy has to give .*'twice'\] along"
  acting = acted(agent(WRITES[0], policy=without))
  with pytest.raises(ValueError, match=message), acting:
    pass


def test_sequences_need_a_table_of_steps():
  made = agent(WRITES[3])
  table = dataclasses.replace(made.tables[0], steps=None)
  acting = acted(dataclasses.replace(made, tables=(table,)))
  with pytest.raises(UsageError, match=r"Sequences to 't'.*step_table\(spec"), acting:
    pass
