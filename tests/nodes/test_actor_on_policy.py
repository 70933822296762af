"""An actor of an agent that is on-policy: each of its rollouts is of one policy."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import Limiter, Sampling, Sequences
from callsheet.agents.step_tables import max_steps, step_table, with_room
from callsheet.errors import CallCancelled
from callsheet.nodes.actor import Actor
from callsheet.nodes.counter import Counter
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.variables import Parameters
from tests.nodes.small import SPEC, Loop, Records, agent, countdowns, eventually

pytestmark = pytest.mark.timeout(60)

B = 3


class Newer:
  """In the learner's place: its parameters are newer each time it is asked."""

  def __init__(self):
    self.version = 0

  def parameters(self, known=-1):
    self.version += 1
    return Parameters(self.version, {'mean': np.float32(self.version)})


def rollouts(length, queue_size):
  return step_table(
    SPEC,
    Sequences('t', length, length, True),
    queue_size,
    extras={'version': specs.Array((), np.int32)},
    sampler='fifo',
    max_times_sampled=1,
    limiter=Limiter.queue(queue_size),
  )


def on_policy_agent(table):
  def policy(params, carry, observation, key):
    version = jnp.full(observation.shape[:1], params['mean']).astype(jnp.int32)
    return jnp.zeros_like(version), carry, {'version': version}

  return dataclasses.replace(
    agent(),
    policy=policy,
    writes=table.steps.writes,
    samples=Sampling('t', B),
    tables=(table,),
    on_policy=True,
  )


def acting(replay, source, table):
  made = on_policy_agent(table)
  return Actor(
    made, countdowns, replay, source, Counter(), Records(), num_environments=B
  )


@pytest.mark.parametrize('length', [5, 20])
def test_each_rollout_is_of_one_policy_and_the_newest(length):
  table = rollouts(length, queue_size=1)
  source, replay = Newer(), NativeReplay([table])
  with Loop(acting(replay, source, table)) as loop:
    for index in range(4):
      data = replay.sample('t', B, timeout=20.0).batch.data
      versions = data['version'][data['mask']]
      # The first one waits for parameters once, and asks for the newest.
      assert set(versions.tolist()) == {index + 1}
    # It has played a block ahead and waits: nothing is asked for until that is drawn.
    eventually(lambda: replay.statistics()['t'].waiting_writers)
    assert source.version == 5
    loop.stop.set()
    replay.close()
  assert isinstance(loop.ended.exception(0), CallCancelled)


def test_another_block_length_is_kept():
  table = rollouts(6, queue_size=100)
  source, replay = Newer(), NativeReplay([table])
  actor = Actor(
    on_policy_agent(table),
    countdowns,
    replay,
    source,
    Counter(),
    Records(),
    num_environments=B,
    block_length=2,
  )
  with Loop(actor) as loop:
    data = replay.sample('t', B, timeout=20.0).batch.data
    assert set(data['version'][data['mask']].tolist()) == {1, 2, 3}
    loop.stop.set()
    replay.close()


def block(start, length, environments):
  """Time steps of one endless episode, which show their number."""
  numbers = np.arange(start, start + length)
  shape = (length, environments)
  return {
    'step_type': np.minimum(numbers[:, None], np.ones(shape)).astype(np.int32),
    'reward': np.ones(shape, np.float32),
    'discount': np.ones(shape, np.float32),
    'observation': np.broadcast_to(
      numbers[:, None, None], (*shape, *SPEC.observation.shape)
    ).astype(np.float32),
    'action': np.zeros(shape, np.int32),
    'version': np.zeros(shape, np.int32),
  }


def test_a_table_with_room_loses_no_rollout():
  """Of sources that together have far more environments than its queue is long."""
  length, environments, sources = 16, 30, 4
  table = rollouts(length, queue_size=1)
  [roomy] = with_room([table], environments * sources)
  small = max_steps(table)
  assert max_steps(roomy) > small
  replay = NativeReplay([table])
  with pytest.raises(ValueError, match='declare max_steps'):
    for source in range(sources):
      steps = block(0, 1, environments)
      replay.append('t', source, steps, fresh=True, timeout=5.0)
  replay.close()
  roomier = dataclasses.replace(
    roomy, max_size=1000, limiter=Limiter.queue(1000), steps=roomy.steps
  )
  replay = NativeReplay([roomier])
  drawn = []
  for begin in range(0, 4 * length, 4):
    for source in range(sources):
      steps = block(begin, 4, environments)
      replay.append('t', source, steps, fresh=not begin, timeout=5.0)
    while replay.statistics()['t'].size:
      data = replay.sample('t', 1, timeout=5.0).batch.data
      drawn.append(int(data['observation'][0, 0, 0, 0]))
  replay.close()
  expected = [n for n in (0, 16, 32) for _ in range(environments * sources)]
  assert sorted(drawn) == expected


def test_a_table_that_says_what_it_holds_is_left_alone():
  table = rollouts(4, 8)
  table = dataclasses.replace(
    table, steps=dataclasses.replace(table.steps, max_steps=5000)
  )
  assert with_room([table], 10**6) == (table,)
