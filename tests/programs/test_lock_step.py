"""In lock-step a run gives the same numbers again."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from callsheet.agents.base import Limiter
from callsheet.agents.dqn import DQNConfig, dqn
from callsheet.launch import launch
from callsheet.nodes import checkpoints
from callsheet.nodes.environments import make_dm_env
from callsheet.programs.lock_step import lock_step
from tests.agents.guard import DISCRETE, TwoStates

pytestmark = pytest.mark.timeout(120)

CONFIG = DQNConfig(
  hidden_sizes=(8, 8),
  batch_size=16,
  min_replay_size=32,
  max_replay_size=300,
  samples_per_insert=2.0,
  n_step=1,
)


def two_states(seed):
  return TwoStates(DISCRETE)


def run(folder, seed=0, agent=None, **options):
  """Runs it to its budget; what it has learnt, and what it has recorded of it."""
  agent = agent or dqn(DISCRETE, CONFIG)
  options = {'evaluation_steps': 200, 'max_actor_steps': 400, **options}
  program = lock_step(
    agent,
    make_dm_env(two_states),
    num_environments=4,
    seed=seed,
    num_episodes=3,
    run_directory=str(folder),
    **options,
  )
  launch(program, 'threads')
  like = jax.jit(agent.init)(jax.random.PRNGKey(0))
  state = checkpoints.restore(str(folder / 'checkpoint' / 'learner'), like)
  last = json.loads((folder / 'metrics.jsonl').read_text().splitlines()[-1])
  figures = ('actor_steps', 'learner_steps', 'learner/loss', 'evaluator/return')
  return jax.device_get(state), {name: last[name] for name in figures}


def same(one, other):
  return all(
    np.array_equal(a, b)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  )


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(tmp_path):
  once, figures = run(tmp_path / 'once')
  again, same_figures = run(tmp_path / 'again')
  other, _ = run(tmp_path / 'other', seed=1)
  assert same(once, again) and figures == same_figures
  assert not same(once.params, other.params)
  # The limiter, and nothing else, says how many updates there are: each step is a
  # transition, which is sampled twice, and a block or a batch may be under way.
  assert figures['actor_steps'] >= 400
  owed = 2 * figures['actor_steps'] - CONFIG.batch_size * figures['learner_steps']
  assert 0 <= owed <= 2 * (32 + 64) + 16


def test_it_ends_where_the_target_is_reached(tmp_path):
  _, figures = run(tmp_path / 'run', max_actor_steps=10**6, target_return=2.0)
  assert figures['evaluator/return'] == 2.0


def test_batches_may_be_larger_than_what_passes_at_once(tmp_path):
  agent = dqn(DISCRETE, CONFIG)
  [table] = agent.tables
  narrow = dataclasses.replace(table, limiter=Limiter(32, 2.0, 2.0))
  agent = dataclasses.replace(agent, tables=(narrow,))
  once, figures = run(tmp_path / 'once', agent=agent)
  again, same_figures = run(tmp_path / 'again', agent=agent)
  assert same(once, again) and figures == same_figures
