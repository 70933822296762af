"""The actor-learner program, declared with a replay that is never called."""

from __future__ import annotations

import inspect

import numpy as np
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec
from callsheet.agents.dqn import DQNConfig, dqn
from callsheet.programs.actor_learner import actor_learner

SPEC = EnvironmentSpec(specs.Array((4,), np.float32), specs.DiscreteArray(2, np.int32))
AGENT = dqn(SPEC, DQNConfig())


def make_environment(num_environments, seed):
  raise AssertionError('declaring a program makes no environment')


class Engine:
  """A replay of one's own; declared here, never called."""

  def __init__(
    self,
    tables,
    *,
    port=None,
    order='random',
    checkpoint_directory=None,
    restore=False,
  ):
    self.tables, self.port, self.order = tables, port, order

  def insert(self, table, columns, priorities=None, timeout=None) -> int:
    raise NotImplementedError

  def append(self, table, source, steps, *, fresh=False, timeout=None) -> int:
    raise NotImplementedError

  def sample(self, table, batch_size, num_batches=1, timeout=None):
    raise NotImplementedError

  def update_priorities(self, table, keys, priorities) -> None:
    raise NotImplementedError

  def checkpoint(self) -> str:
    raise NotImplementedError

  def statistics(self):
    raise NotImplementedError


def declare(**options):
  return actor_learner(
    AGENT, make_environment, **{'make_replay': Engine, **options}
  ).plan()


def arguments(node):
  """What the node's constructor is given, by name; handles as they are."""
  bound = inspect.signature(node.make).bind(*node.args, **node.kwargs)
  return bound.arguments
