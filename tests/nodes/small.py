"""Small stand-ins for what a node works with: a service can't tell the difference."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import Future
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from callsheet.agents.base import Agent, Batch, EnvironmentSpec, NStep, Sampling, Table
from callsheet.errors import CallCancelled
from callsheet.nodes.environments import DmEnvVector
from callsheet.nodes.replay import Sample
from callsheet.nodes.variables import Parameters

SPEC = EnvironmentSpec(specs.Array((2,), np.float32), specs.DiscreteArray(3, np.int32))
TABLE = Table(
  't',
  {
    'observation': SPEC.observation,
    'action': SPEC.action,
    'reward': specs.Array((), np.float32),
    'discount': specs.Array((), np.float32),
    'next_observation': SPEC.observation,
  },
  max_size=1000,
)


@functools.cache
def agent(n_step=2, prioritized=True, evaluate=None):
  """Learns the mean of what it is given: its whole policy is one number.

  `params` is `{'mean': []}`; it plays the action `|mean| mod 3`, exploring or not, and
  `evaluate`, if given, when it is evaluated.
  """

  def init(key):
    return {
      'params': {'mean': jax.random.normal(key)},
      'steps': jnp.zeros((), jnp.int32),
    }

  def update(state, batch):
    mean = state['params']['mean']
    errors = batch.data['reward'] - mean
    mean = mean + 0.1 * jnp.mean(errors)
    metrics = {'loss': jnp.mean(errors**2)}
    if prioritized:
      metrics['priorities'] = jnp.abs(errors) + 1
    return {'params': {'mean': mean}, 'steps': state['steps'] + 1}, metrics

  def policy(params, carry, observation, key):
    action = jnp.abs(params['mean']).astype(jnp.int32) % 3
    return jnp.full(observation.shape[:1], action), carry, ()

  return Agent(
    name='mean',
    spec=SPEC,
    init=init,
    update=update,
    parameters=lambda state: state['params'],
    policy=policy,
    evaluation_policy=evaluate or policy,
    initial_carry=lambda num_environments: jnp.zeros(num_environments),
    writes=NStep('t', n_step, 0.9),
    samples=Sampling('t', 4),
    tables=(TABLE,),
  )


class Countdown(dm_env.Environment):
  """Episodes of 1 to 5 steps, the same for the same seed; some are cut off, some end.

  Every time step shows `(seed, steps since the beginning)`; the reward is the action
  taken plus a tenth of the steps left.
  """

  def __init__(self, seed):
    self._rng = np.random.default_rng(seed)
    self._seed, self._clock, self._left = seed % 1000, -1, 0

  def reset(self):
    self._left = int(self._rng.integers(1, 6))
    return dm_env.restart(self._show())

  def step(self, action):
    if not self._left:
      return self.reset()
    self._left -= 1
    reward = float(action) + 0.1 * self._left
    if self._left:
      return dm_env.transition(reward, self._show())
    if self._rng.random() < 0.5:
      return dm_env.truncation(reward, self._show())
    return dm_env.termination(reward, self._show())

  def _show(self):
    self._clock += 1
    return np.array([self._seed, self._clock], np.float32)

  def observation_spec(self):
    return SPEC.observation

  def action_spec(self):
    return SPEC.action


class Watched:
  """A batch of environments that keeps what went through it."""

  def __init__(self, environment):
    self._environment = environment
    self.num_environments = environment.num_environments
    self.time_steps: list[dm_env.TimeStep] = []
    self.actions: list[Any] = []
    self.resets = 0
    self.closed = False

  def spec(self):
    return self._environment.spec()

  def reset(self):
    self.resets += 1
    self.time_steps.append(self._environment.reset())
    return self.time_steps[-1]

  def step(self, action):
    self.actions.append(np.array(action))
    self.time_steps.append(self._environment.step(action))
    return self.time_steps[-1]

  def close(self):
    self.closed = True


def countdowns(num_environments, seed):
  """A `MakeEnvironment` of Countdowns; it is the same for the same seed."""
  return DmEnvVector([Countdown(100 * seed + i) for i in range(num_environments)])


class Records:
  """In the recorder's place: keeps what was recorded."""

  def __init__(self):
    self.calls: list[tuple[str, dict[str, float], int]] = []

  def record(self, role, figures, index=0):
    self.calls.append((role, dict(figures), index))

  def all(self, name):
    """Every value of a figure, oldest first."""
    return [figures[name] for _, figures, _ in self.calls if name in figures]


class Source:
  """In the learner's place: gives the parameters it was last told to publish."""

  def __init__(self, mean=0.0, version=0):
    self.publish(mean, version)
    self.asked: list[int] = []

  def publish(self, mean, version):
    self._published = Parameters(version, {'mean': np.float32(mean)})

  def parameters(self, known=-1):
    self.asked.append(known)
    return None if known == self._published.version else self._published


def batches(seed, count, size=4):
  """What a replay answers to `sample`: K batches of B, with keys of their own."""
  rng = np.random.default_rng(seed)
  shape = (count, size)
  data = {'reward': rng.normal(size=shape).astype(np.float32)}
  keys = rng.integers(0, 2**63, shape).astype(np.uint64)
  batch = Batch(data, np.full(shape, 0.1, np.float32), np.full(count, 10, np.int32))
  return Sample(batch, keys)


class Batches:
  """In the replay's place: answers `sample` with batches, numbered from 0.

  Args:
    limit: samples that there are; who asks for more waits until `cancel`, as a client
      does when its node is stopped.
  """

  def __init__(self, limit=None):
    self._limit, self._lock = limit, threading.Lock()
    self._cancelled = threading.Event()
    self.waits = threading.Event()
    self.samples: list[Sample] = []
    self.updates: list[tuple[str, Any, Any]] = []

  def sample(self, table, batch_size, num_batches=1):
    assert (table, batch_size) == ('t', 4)
    with self._lock:
      index = len(self.samples)
      if self._limit is None or index < self._limit:
        self.samples.append(batches(index, num_batches))
        return self.samples[-1]
    self.waits.set()
    self._cancelled.wait()
    raise CallCancelled('this node is stopping')

  def update_priorities(self, table, keys, priorities):
    self.updates.append((table, np.array(keys), np.array(priorities)))

  def cancel(self):
    self._cancelled.set()


class Loop:
  """A node's `run` in a thread of its own, which is over when the `with` is.

  Attributes:
    stop: the node's.
    ended: its future; `result()` raises what `run` raised.
  """

  def __init__(self, node):
    self.stop = threading.Event()
    self.ended: Future[None] = Future()
    self._thread = threading.Thread(target=self._run, args=(node,), daemon=True)

  def _run(self, node):
    try:
      self.ended.set_result(node.run(self.stop))
    except BaseException as error:
      self.ended.set_exception(error)

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *_):
    self.stop.set()
    self._thread.join(20)
    assert not self._thread.is_alive(), 'the node did not stop'


def eventually(condition):
  """Waits until the condition holds, at most 20 seconds."""
  until = time.monotonic() + 20
  while not condition():
    assert time.monotonic() < until, 'timed out'
    time.sleep(0.005)
