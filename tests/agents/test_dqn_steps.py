"""Where DQN feeds its table with time steps: on images, not on vectors."""

from __future__ import annotations

import haiku as hk
import jax
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import Batch, EnvironmentSpec, NStep
from callsheet.agents.dqn import DQNConfig, dqn
from callsheet.errors import UsageError
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.replay_checks import check_tables

ACTION = specs.DiscreteArray(3, np.int32)
IMAGES = EnvironmentSpec(specs.Array((6, 5, 4), np.uint8), ACTION)
VECTORS = EnvironmentSpec(specs.Array((4,), np.float32), ACTION)
SMALL = {'min_replay_size': 10, 'max_replay_size': 100, 'batch_size': 4}


def torso(observation):
  return hk.nets.MLP([8])(hk.Flatten()(observation.astype(np.float32) / 255))


def on_images(spec=IMAGES, **changes):
  return dqn(spec, DQNConfig(**{**SMALL, 'num_stacked': 4, **changes}), torso=torso)


def test_images_are_fed_as_time_steps():
  agent = on_images(n_step=3, discount=0.9)
  (table,) = agent.tables
  assert agent.writes == NStep(table.name, 3, 0.9, num_stacked=4)
  assert table.steps is not None and table.steps.writes == agent.writes
  assert table.steps.observation == IMAGES.observation and not table.steps.extras
  assert (table.sampler, table.max_size) == ('prioritized', 100)
  assert check_tables(agent.tables) == {table.name: table}


@pytest.mark.parametrize('num_stacked', [1, 4])
def test_vectors_are_not(num_stacked):
  agent = dqn(VECTORS, DQNConfig(**SMALL, num_stacked=num_stacked))
  (table,) = agent.tables
  assert table.steps is None
  assert check_tables(agent.tables) == {table.name: table}
  assert {name: spec.shape for name, spec in table.columns.items()} == {
    'observation': (4,),
    'action': (),
    'reward': (),
    'discount': (),
    'next_observation': (4,),
  }


def test_frames_that_are_no_stack_are_refused_by_the_replay():
  with pytest.raises(UsageError, match=r'\[6, 5, 4\] are no stack of 3 frames'):
    check_tables(on_images(num_stacked=3).tables)
  with pytest.raises(UsageError, match='num_stacked'):
    on_images(num_stacked=0)


def test_it_learns_from_what_such_a_table_gives():
  agent = on_images(samples_per_insert=None)
  (table,) = agent.tables
  replay = NativeReplay(agent.tables)
  generator, length = np.random.default_rng(0), 40
  step_type = np.ones((length, 2), np.int32)
  step_type[0] = 0
  steps = {
    'step_type': step_type,
    'reward': generator.normal(size=(length, 2)).astype(np.float32),
    'discount': np.ones((length, 2), np.float32),
    'observation': generator.integers(0, 256, (length, 2, 6, 5, 1), np.uint8),
    'action': generator.integers(0, 3, (length, 2), np.int32),
  }
  try:
    replay.append(table.name, 0, steps, fresh=True, timeout=20)
    sample = replay.sample(table.name, 4)
  finally:
    replay.close()
  batch = Batch(*jax.tree.map(lambda x: x[0], sample.batch))
  # What lies frame behind frame gives the same update as what lies in order.
  in_order = batch._replace(
    data={name: np.ascontiguousarray(x) for name, x in batch.data.items()}
  )
  assert not batch.data['observation'].flags.c_contiguous
  state = agent.init(jax.random.PRNGKey(0))
  updated, metrics = jax.jit(agent.update)(state, batch)
  again, same = jax.jit(agent.update)(state, in_order)
  jax.tree.map(np.testing.assert_array_equal, (updated, metrics), (again, same))
  assert metrics['priorities'].shape == (4,) and np.isfinite(metrics['loss'])
