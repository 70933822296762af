"""Where a learner's state and batches are: on one device, or over all there are."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from callsheet.agents.base import Agent, Batch, Metrics, Sampling, State
from callsheet.errors import UsageError

# The mesh's one axis: batches are split along it.
AXIS = 'data'


class Placement(Protocol):
  """How many updates in one dispatch are laid out.

  Attributes:
    samples: what this process draws for an update: its share of the agent's batch.
    place: puts K drawn batches where `dispatch` wants them; None leaves them be.
    leads: whether it is this process that counts, records and saves.
    spread: whether `whole` takes all processes, for each holds but a part.
  """

  samples: Sampling
  place: Callable[[Batch], Batch] | None
  leads: bool
  spread: bool

  def state(self, seed: int) -> State:
    """The agent's first state."""

  def put(self, state: State) -> State:
    """A state in numpy's arrays, where `dispatch` wants it."""

  def dispatch(self) -> Any:
    """A jitted `(state, K batches) -> (state, metrics of each)`; donates the state."""

  def batches(self, count: int) -> Batch:
    """What `place` makes of so many batches, as shapes."""

  def rows(self, priorities: Any) -> NDArray[Any]:
    """Those of the items that this process has drawn, `[K, B]`."""

  def whole(self, tree: Any) -> Any:
    """A copy of a part of the state, in numpy's arrays."""


def placement(agent: Agent) -> Placement:
  """The one for the devices that there are, those of the other processes included.

  Raises:
    UsageError: the devices can't share the agent's batches evenly.
  """
  return OneDevice(agent) if jax.device_count() == 1 else ManyDevices(agent)


class OneDevice:
  """Everything on the only device."""

  def __init__(self, agent: Agent) -> None:
    self._agent, self.samples = agent, agent.samples
    self._sharding = jnp.zeros(()).sharding
    # On the CPU they are where they are needed, and each array costs a call.
    on_cpu = jax.default_backend() == 'cpu'
    self.place: Callable[[Batch], Batch] | None = None if on_cpu else self._put
    self.leads, self.spread = True, False

  def state(self, seed: int) -> State:
    """See `Placement.state`."""
    state = jax.jit(self._agent.init)(jax.random.PRNGKey(seed))
    return self.put(state)

  def put(self, state: State) -> State:
    """See `Placement.put`."""
    # Committed, as what a dispatch returns is: else the second would compile once more.
    return jax.device_put(state, self._sharding)

  def dispatch(self) -> Any:
    """See `Placement.dispatch`."""
    return jax.jit(
      lambda state, batches: _updates(self._agent, state, batches), donate_argnums=0
    )

  def batches(self, count: int) -> Batch:
    """See `Placement.batches`."""
    return _like(
      _shapes(self._agent, (count,)), None if self.place is None else self._sharding
    )

  def rows(self, priorities: Any) -> NDArray[Any]:
    """See `Placement.rows`."""
    return np.asarray(priorities)

  def whole(self, tree: Any) -> Any:
    """See `Placement.whole`."""
    return jax.tree.map(np.array, tree)

  def _put(self, batch: Batch) -> Batch:
    placed: Batch = jax.device_put(batch, self._sharding)
    return placed


class ManyDevices:
  """Batches are split over the devices; the state is on each, or as the agent says.

  What is computed is what one device would compute of the whole batch: XLA puts the
  sums over devices where the agent's functions have sums over a batch.
  """

  def __init__(self, agent: Agent) -> None:
    devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    _check(agent, len(devices))
    self._agent = agent
    share = agent.samples.batch_size // jax.process_count()
    self.samples = dataclasses.replace(agent.samples, batch_size=share)
    self.leads = jax.process_index() == 0
    mesh = Mesh(np.array(devices), (AXIS,))
    self._one, self._rows = over(mesh), over(mesh, None, AXIS)
    self.place: Callable[[Batch], Batch] | None = self._put
    shapes = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
    self._state = (
      jax.tree.map(lambda _: self._one, shapes)
      if agent.sharding is None
      else agent.sharding(mesh, shapes)
    )
    self.spread = jax.process_count() > 1 and not all(
      sharding.is_fully_replicated for sharding in jax.tree.leaves(self._state)
    )

  def state(self, seed: int) -> State:
    """See `Placement.state`."""

    # The key is made inside: outside it would be an array of this process alone.
    def init() -> State:
      return self._agent.init(jax.random.PRNGKey(seed))

    return jax.jit(init, out_shardings=self._state)()

  def put(self, state: State) -> State:
    """See `Placement.put`."""
    return jax.tree.map(
      lambda array, sharding: jax.make_array_from_callback(
        np.shape(array), sharding, lambda index: np.asarray(array)[index]
      ),
      state,
      self._state,
    )

  def dispatch(self) -> Any:
    """See `Placement.dispatch`."""

    def updates(state: State, batches: Batch) -> tuple[State, Metrics]:
      # Each process was told a size of its own; all have to learn with the same.
      sizes = jnp.max(batches.table_size, axis=1)
      return _updates(self._agent, state, batches._replace(table_size=sizes))

    _, metrics = jax.eval_shape(
      self._agent.update,
      jax.eval_shape(self._agent.init, jax.random.PRNGKey(0)),
      _shapes(self._agent, ()),
    )
    shardings = {
      name: self._rows if name == 'priorities' else self._one for name in metrics
    }
    return jax.jit(
      updates,
      in_shardings=(self._state, self._rows),
      out_shardings=(self._state, shardings),
      donate_argnums=0,
    )

  def batches(self, count: int) -> Batch:
    """See `Placement.batches`."""
    shapes = _shapes(self._agent, (count,))
    sizes = _shape((count, jax.device_count()), np.int32)
    return _like(shapes._replace(table_size=sizes), self._rows)

  def rows(self, priorities: Any) -> NDArray[Any]:
    """See `Placement.rows`."""
    shards = sorted(priorities.addressable_shards, key=lambda s: s.index[1].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards], axis=1)

  def whole(self, tree: Any) -> Any:
    """See `Placement.whole`."""
    if self.spread:
      tree = self._gather(tree)
    return jax.tree.map(np.array, tree)

  def _put(self, batch: Batch) -> Batch:
    # Every device gets a `table_size`.
    sizes = np.repeat(
      np.asarray(batch.table_size)[:, None], jax.local_device_count(), axis=1
    )
    placed: Batch = jax.tree.map(
      lambda array: jax.make_array_from_process_local_data(
        self._rows, np.asarray(array)
      ),
      batch._replace(table_size=sizes),
    )
    return placed

  @functools.cached_property
  def _gather(self) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=self._one)


def _updates(agent: Agent, state: State, batches: Batch) -> tuple[State, Metrics]:
  """One update after the other; one alone is no loop, in which CPUs convolve slowly."""
  alone = len(jax.tree.leaves(batches)[0]) == 1
  return jax.lax.scan(agent.update, state, batches, unroll=alone)


def _check(agent: Agent, devices: int) -> None:
  size, processes = agent.samples.batch_size, jax.process_count()
  over = f'{devices} devices' + (f' in {processes} processes' if processes > 1 else '')
  if devices != processes * jax.local_device_count():
    raise UsageError(
      f'the learner has {over}, {jax.local_device_count()} of them in process '
      f'{jax.process_index()}; give each process as many as the others'
    )
  if size % devices:
    below, above = size // devices * devices, -(-size // devices) * devices
    fits = ' or '.join(str(each) for each in (below, above) if each)
    raise UsageError(
      f'agent {agent.name!r} samples batches of {size}, which {over} can not share '
      f'evenly; take a batch_size of {fits}, or other devices'
    )


def _shapes(agent: Agent, leading: tuple[int, ...]) -> Batch:
  """Batches of the agent's table, as JAX would hold them."""
  samples = agent.samples
  table = next(each for each in agent.tables if each.name == samples.table)
  rows = (*leading, samples.batch_size)
  data = {
    name: _shape((*rows, *column.shape), column.dtype)
    for name, column in table.columns.items()
  }
  return Batch(data, _shape(rows, np.float32), _shape(leading, np.int32))


def _like(shapes: Batch, sharding: jax.sharding.Sharding | None) -> Batch:
  placed: Batch = jax.tree.map(
    lambda each: _shape(each.shape, each.dtype, sharding), shapes
  )
  return placed


def _shape(
  shape: tuple[int, ...], dtype: Any, sharding: jax.sharding.Sharding | None = None
) -> Any:
  canonical = jax.dtypes.canonicalize_dtype(dtype)
  return jax.ShapeDtypeStruct(shape, canonical, sharding=sharding)  # type: ignore[no-untyped-call]


def over(mesh: Mesh, *axes: str | None) -> NamedSharding:
  """Arrays whose dimensions are split along these axes of the mesh; none: whole."""
  return NamedSharding(mesh, PartitionSpec(*axes))  # type: ignore[no-untyped-call]
