"""Soft Q-learning, an agent from scratch: python examples/my_agent.py [threads]

Haarnoja et al. 2017, https://arxiv.org/abs/1702.08165, for discrete actions: with a
temperature, the value of a state is `temperature * logsumexp(q / temperature)`, and the
policy, which explores by itself, is `softmax(q / temperature)`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from callsheet import Program
from callsheet.agents import checks
from callsheet.agents.base import (
  Agent,
  Batch,
  EnvironmentSpec,
  Limiter,
  Metrics,
  NStep,
  Sampling,
)
from callsheet.agents.step_tables import step_table
from callsheet.launch import launch
from callsheet.nodes.gymnasium_environments import make_gymnasium
from callsheet.programs.actor_learner import actor_learner


@dataclasses.dataclass(frozen=True)
class Config:
  """What can be chosen."""

  temperature: float = 0.1
  discount: float = 0.99
  n_step: int = 3
  hidden_size: int = 64
  learning_rate: float = 1e-3
  target_step_size: float = 0.01
  batch_size: int = 64


class State(NamedTuple):
  """Everything that the learner holds."""

  params: Any
  target_params: Any
  opt_state: Any


def soft_q(spec: EnvironmentSpec, config: Config = Config()) -> Agent:
  """The agent: pure functions, what an actor writes, and how a learner samples."""
  num_actions = checks.num_actions('soft_q', spec)
  sizes = (config.hidden_size, config.hidden_size, num_actions)
  # 1. A network, which policy and update share.
  network = hk.without_apply_rng(
    hk.transform(lambda inputs: hk.nets.MLP(sizes)(inputs))
  )
  optimizer = optax.adam(config.learning_rate)

  def soft_value(q: jax.Array) -> jax.Array:
    scaled = jax.nn.logsumexp(q / config.temperature, axis=-1)
    return config.temperature * scaled

  # 2. The loss of a batch: columns `[B, ...]`, as `NStep` below describes them.
  def loss(params: Any, target_params: Any, batch: Batch) -> jax.Array:
    data = batch.data
    q = network.apply(params, data['observation'])
    taken = jnp.take_along_axis(q, data['action'][:, None], axis=-1)[:, 0]
    next_value = soft_value(network.apply(target_params, data['next_observation']))
    target = data['reward'] + data['discount'] * next_value
    return jnp.mean(optax.huber_loss(taken, jax.lax.stop_gradient(target)))

  # 3. What a learner does: `init(key) -> state`, `update(state, batch)`.
  def init(key: jax.Array) -> State:
    params = network.init(key, jnp.zeros((1, *spec.observation.shape)))
    return State(params, jax.tree.map(jnp.copy, params), optimizer.init(params))

  def update(state: State, batch: Batch) -> tuple[State, Metrics]:
    value, gradients = jax.value_and_grad(loss)(
      state.params, state.target_params, batch
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state)
    params = optax.apply_updates(state.params, updates)
    target_params = optax.incremental_update(
      params, state.target_params, config.target_step_size
    )
    return State(params, target_params, opt_state), {'loss': value}

  # 4. What an actor does with a batch of environments, and an evaluator.
  def policy(params: Any, carry: Any, observation: Any, key: jax.Array) -> Any:
    q = network.apply(params, observation)
    return jax.random.categorical(key, q / config.temperature), carry, ()

  def greedy(params: Any, carry: Any, observation: Any, key: jax.Array) -> Any:
    return jnp.argmax(network.apply(params, observation), axis=-1), carry, ()

  # 5. What goes into the replay, and how often it comes out again.
  writes = NStep('transitions', config.n_step, config.discount)
  table = step_table(
    spec, writes, max_size=50_000, limiter=Limiter(1_000, samples_per_insert=16.0)
  )
  return Agent(
    name='soft_q',
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: state.params,
    policy=policy,
    evaluation_policy=greedy,
    initial_carry=lambda num_environments: (),
    writes=writes,
    samples=Sampling('transitions', config.batch_size),
    tables=(table,),
    config=dataclasses.asdict(config),
  )


def program(run_directory: str | None = None, **options: Any) -> Program:
  """Soft Q-learning on CartPole-v1, until it is solved: `callsheet launch` takes it."""
  make_environment = make_gymnasium('CartPole-v1')
  with contextlib.closing(make_environment(1, 0)) as probe:
    agent = soft_q(probe.spec())
  options = {'target_return': 475, 'max_actor_steps': 200_000, **options}
  return actor_learner(agent, make_environment, run_directory=run_directory, **options)


if __name__ == '__main__':
  with tempfile.TemporaryDirectory() as folder:
    launch(program(folder), sys.argv[1] if len(sys.argv) > 1 else 'processes')
    last = json.loads(Path(folder, 'metrics.jsonl').read_text().splitlines()[-1])
  print(
    f'mean return {last["evaluator/return"]:.1f} after {last["actor_steps"]:,} steps '
    f'and {last["learner_steps"]:,} updates, in {last["seconds"]:.0f} s'
  )
