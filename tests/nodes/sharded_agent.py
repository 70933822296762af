"""Updates of an agent by four devices and by one of them, on the same random batches.

python -m tests.nodes.sharded_agent AGENT [FIELD=VALUE ...]
"""

from __future__ import annotations

import json
import sys

import jax
import numpy as np
from dm_env import specs

from callsheet.agents.base import Batch, EnvironmentSpec
from callsheet.agents.registry import find
from callsheet.errors import UsageError
from callsheet.nodes.sharding import ManyDevices, OneDevice

DEVICES, BATCH, UPDATES = 4, 8, 2
_OBSERVATION = specs.Array((3,), np.float32)
_DISCRETE = EnvironmentSpec(_OBSERVATION, specs.DiscreteArray(3, np.int32))
_CONTINUOUS = EnvironmentSpec(
  _OBSERVATION, specs.BoundedArray((2,), np.float32, -1.0, 1.0)
)


def make(name, options):
  """The agent, for discrete actions if it takes them."""
  entry = find(name)
  config = entry.config(batch_size=BATCH, **options)
  try:
    return entry.make(_DISCRETE, config)
  except UsageError:
    return entry.make(_CONTINUOUS, config)


def column(generator, name, spec, shape):
  """Any values that may stand in a table's column."""
  if name == 'discount':
    drawn = generator.choice([0.0, 1.0], shape, p=[0.2, 0.8])
  elif name in ('mask', 'version'):
    drawn = np.full(shape, name == 'mask')
  elif name == 'step_type':
    drawn = generator.choice([0, 1, 2], shape, p=[0.1, 0.8, 0.1])
  elif isinstance(spec, specs.DiscreteArray):
    drawn = generator.integers(0, spec.num_values, shape)
  elif isinstance(spec, specs.BoundedArray):
    drawn = generator.uniform(-0.9, 0.9, shape)
  else:
    drawn = generator.normal(size=shape)
  return drawn.astype(spec.dtype)


def batches(agent):
  """K batches of the agent's table."""
  generator = np.random.default_rng(1)
  [table] = [each for each in agent.tables if each.name == agent.samples.table]
  rows = (UPDATES, BATCH)
  data = {
    name: column(generator, name, spec, (*rows, *spec.shape))
    for name, spec in table.columns.items()
  }
  probabilities = generator.uniform(0.001, 0.1, rows).astype(np.float32)
  return Batch(data, probabilities, np.full(UPDATES, 1000, np.int32))


def learnt(agent, placement):
  """Parameters and metrics behind the updates, in numpy's arrays."""
  batch = batches(agent)
  if placement.place is not None:
    batch = placement.place(batch)
  state, metrics = placement.dispatch()(placement.state(3), batch)
  return jax.tree.map(np.array, (agent.parameters(state), metrics))


def main():
  """Prints how many numbers were compared, and how far the furthest two were apart."""
  assert jax.device_count() == DEVICES
  name, *options = sys.argv[1:]
  agent = make(name, {key: json.loads(value) for key, value in map(_split, options)})
  one, many = learnt(agent, OneDevice(agent)), learnt(agent, ManyDevices(agent))
  apart = jax.tree.map(_apart, one, many)
  count = sum(np.size(leaf) for leaf in jax.tree.leaves(one))
  print(json.dumps({'count': count, 'apart': max(jax.tree.leaves(apart))}))


def _split(option):
  return option.split('=')


def _apart(one, many):
  assert one.shape == many.shape and np.isfinite(one).all()
  return float(np.max(np.abs(one - many) / (1 + np.abs(one))))


if __name__ == '__main__':
  main()
