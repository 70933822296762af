"""One process of a learner, on a replay that tells each its share of the same batches.

python -m tests.nodes.spmd_learner RANK SIZE COORDINATOR AGENT DIRECTORY
"""

from __future__ import annotations

import os
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from callsheet.agents.base import Agent, Batch, NStep, Sampling
from callsheet.agents.dqn import DQNConfig, dqn
from callsheet.nodes.counter import Counter
from callsheet.nodes.learner import Learner
from callsheet.nodes.replay import Sample
from tests.nodes.small import SPEC, TABLE, Records

BATCH, UPDATES, PER_DISPATCH = 16, 100, 8


def spread() -> Agent:
  """A linear regression by Adam, whose weights are spread over the devices."""
  optimizer = optax.adam(1e-2)

  def init(key):
    weights = jax.random.normal(key, (8, 2))
    return {'weights': weights, 'optimizer': optimizer.init(weights)}

  def update(state, batch):
    def loss(weights):
      features = jnp.tile(batch.data['observation'], 4)
      errors = features @ weights - batch.data['next_observation']
      return jnp.mean(errors**2)

    value, gradients = jax.value_and_grad(loss)(state['weights'])
    updates, optimized = optimizer.update(gradients, state['optimizer'])
    weights = optax.apply_updates(state['weights'], updates)
    return {'weights': weights, 'optimizer': optimized}, {'loss': value}

  def sharding(mesh, shapes):
    def of(shape):
      axes = ('data',) if shape.shape and shape.shape[0] % mesh.size == 0 else ()
      return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(of, shapes)

  def policy(params, carry, observation, key):
    return jnp.zeros(len(observation), jnp.int32), carry, ()

  return Agent(
    name='spread',
    spec=SPEC,
    init=init,
    update=update,
    parameters=lambda state: state['weights'],
    policy=policy,
    evaluation_policy=policy,
    initial_carry=jnp.zeros,
    writes=NStep('t', 1, 0.9),
    samples=Sampling('t', BATCH),
    tables=(TABLE,),
    sharding=sharding,
  )


AGENTS = {
  'dqn': lambda: dqn(SPEC, DQNConfig(batch_size=BATCH, target_update_period=7)),
  'spread': spread,
}


class Shares:
  """In the replay's place: the rows of each batch that belong to this process."""

  def __init__(self, rank: int, size: int) -> None:
    self._rank, self._size, self._drawn = rank, size, 0
    self.priorities: dict[int, float] = {}

  def sample(self, table, batch_size, num_batches=1):
    rng = np.random.default_rng(self._drawn)
    shape = (num_batches, BATCH)
    data = {
      'observation': rng.normal(size=(*shape, 2)).astype(np.float32),
      'action': rng.integers(0, 3, shape).astype(np.int32),
      'reward': rng.normal(size=shape).astype(np.float32),
      'discount': rng.choice([0.0, 0.9], shape).astype(np.float32),
      'next_observation': rng.normal(size=(*shape, 2)).astype(np.float32),
    }
    probabilities = rng.uniform(0.001, 0.1, shape).astype(np.float32)
    keys = np.arange(self._drawn * BATCH, (self._drawn + num_batches) * BATCH)
    keys = keys.reshape(shape).astype(np.uint64)
    # They are asked at different times: the table has grown by then.
    sizes = np.full(num_batches, 1000 + self._drawn - self._rank, np.int32)
    self._drawn += num_batches
    assert batch_size * self._size == BATCH
    own = slice(self._rank * batch_size, (self._rank + 1) * batch_size)
    batch = Batch({n: c[:, own] for n, c in data.items()}, probabilities[:, own], sizes)
    return Sample(batch, keys[:, own])

  def update_priorities(self, table, keys, priorities):
    assert keys.shape == priorities.shape
    self.priorities.update(
      zip(keys.ravel().tolist(), priorities.ravel().tolist(), strict=True)
    )


def main() -> None:
  rank, size, coordinator, name, directory = sys.argv[1:]
  if int(size) > 1:
    jax.distributed.initialize(coordinator, int(size), int(rank))
  replay, counter, records = Shares(int(rank), int(size)), Counter(), Records()
  learner = Learner(
    AGENTS[name](),
    replay,
    counter,
    records,
    seed=3,
    updates_per_dispatch=PER_DISPATCH,
    publish_period=0.01,
    max_steps=UPDATES,
    checkpoint_directory=os.path.join(directory, 'checkpoint'),
  )
  learner.run(threading.Event())
  learner.close()
  found = learner.parameters()
  assert found.version == UPDATES
  np.savez(
    os.path.join(directory, f'{rank}.npz'),
    *jax.tree.leaves(found.params),
    keys=list(replay.priorities),
    priorities=list(replay.priorities.values()),
    counted=counter.counts().get('learner_steps', 0),
    recorded=len(records.calls),
    devices=jax.device_count(),
  )
  jax.distributed.shutdown()


if __name__ == '__main__':
  main()
