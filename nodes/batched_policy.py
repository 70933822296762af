"""One policy for the environments of many actors, in one dispatch."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Agent, Carry, Params
from callsheet.nodes.playing import begun, check_rows

# Smaller batches are padded to it: they would be no faster by themselves.
_SMALLEST = 8


class Asked(NamedTuple):
  """One actor's part in a batch.

  Attributes:
    actor: who asks; once in a batch.
    observation: `[B, ...]`.
    first: `[B]` bool, where its carry is the initial one; that of an actor which is not
      known, or comes with another B than before, is so everywhere.
  """

  actor: int
  observation: NDArray[Any]
  first: NDArray[Any]


def sizes(max_size: int) -> tuple[int, ...]:
  """The sizes that batches are padded to: powers of two, and the largest."""
  powers = []
  size = _SMALLEST
  while size < max_size:
    powers.append(size)
    size *= 2
  return (*powers, max_size)


class BatchedPolicy:
  """Runs an agent's policy for many actors, whose carries it keeps on the device.

  All carries lie one behind the other, a row an environment: a dispatch takes the rows
  of those who ask and puts them back. Padding has no row.

  Args:
    agent: whose policy it is.
    seed: of the policy.
    max_size: environments in one batch.

  Raises:
    UsageError: the carry, or what the policy gives, can't be told apart by environment.
  """

  def __init__(self, agent: Agent, seed: int, max_size: int) -> None:
    self._agent, self._sizes = agent, sizes(max_size)
    self._key = jax.random.PRNGKey(seed)
    self._lengths: dict[int, int] = {}
    self._rows: dict[tuple[int, int], NDArray[np.int32]] = {}
    self._used, self._capacity = 0, max_size
    initial = agent.initial_carry(2)
    check_rows(agent, 'initial_carry', initial, 2)
    # Each row's present carry, and the one that it begins with.
    self._carries, self._initials = (
      jax.tree.map(
        lambda rows: jnp.zeros((max_size, *rows.shape[1:]), rows.dtype), initial
      )
      for _ in range(2)
    )
    self._act = _jit(agent)

  def compile(self, stop: threading.Event) -> None:
    """Makes the programs of all sizes, so that nobody waits for one; ends at a stop."""
    agent = self._agent
    params = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
      jax.eval_shape(lambda: agent.parameters(agent.init(self._key))),
    )
    for size in self._sizes:
      if stop.is_set():
        return
      action, extras = self._dispatch(params, self._padded([], size))
      check_rows(agent, 'action', action, size)
      check_rows(agent, 'extras', extras, size)

  def act(
    self, params: Params, batch: Sequence[Asked]
  ) -> list[tuple[NDArray[Any], Any]]:
    """Actions `[B, ...]` and extras of each, in order; of at most `max_size` in all."""
    for asked in batch:
      self._begin(asked)
    lengths = [len(asked.observation) for asked in batch]
    size = next(size for size in self._sizes if size >= sum(lengths))
    given = jax.device_get(self._dispatch(params, self._padded(batch, size)))
    ends = np.cumsum(lengths).tolist()
    return [
      jax.tree.map(lambda leaf, part=slice(end - length, end): leaf[part], given)
      for length, end in zip(lengths, ends, strict=True)
    ]

  def _dispatch(
    self, params: Params, padded: tuple[NDArray[Any], NDArray[Any], NDArray[np.int32]]
  ) -> tuple[chex.Array, Any]:
    action, extras, self._carries, self._key = self._act(
      params, self._carries, self._initials, *padded, self._key
    )
    return action, extras

  def _padded(
    self, batch: Sequence[Asked], size: int
  ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int32]]:
    """The observation `[size, ...]`, where episodes begin, and the rows, `[size]`.

    Padding's rows are behind the last.
    """
    spec = self._agent.spec.observation
    observation = np.zeros(
      (size, *spec.shape), jax.dtypes.canonicalize_dtype(spec.dtype)
    )
    first = np.zeros(size, np.bool_)
    rows = np.full(size, self._capacity, np.int32)
    end = 0
    for asked in batch:
      length = len(asked.observation)
      begin, end = end, end + length
      observation[begin:end] = asked.observation
      first[begin:end] = asked.first
      rows[begin:end] = self._rows[asked.actor, length]
    return observation, first, rows

  def _begin(self, asked: Asked) -> None:
    """Gives an actor its rows, and the initial carry, if it is due."""
    length = len(asked.observation)
    if self._lengths.get(asked.actor) == length:
      return
    self._lengths[asked.actor] = length
    place = (asked.actor, length)
    if place not in self._rows:
      self._make_room(length)
      self._rows[place] = np.arange(self._used, self._used + length, dtype=np.int32)
      self._used += length
    initial = self._agent.initial_carry(length)
    self._carries = _put(self._carries, self._rows[place], initial)
    self._initials = _put(self._initials, self._rows[place], initial)

  def _make_room(self, length: int) -> None:
    before = self._capacity
    while self._used + length > self._capacity:
      self._capacity *= 2
    more = self._capacity - before
    if more:
      self._carries, self._initials = jax.tree.map(
        lambda rows: jnp.concatenate(
          [rows, jnp.zeros((more, *rows.shape[1:]), rows.dtype)]
        ),
        (self._carries, self._initials),
      )


def _jit(agent: Agent) -> Any:
  """`(params, carries, initials, observation, first, rows, key)`, all that it takes, to
  `(action, extras, carries, key)`.
  """

  @functools.partial(jax.jit, donate_argnums=1)
  def act(
    params: Params,
    carries: Carry,
    initials: Carry,
    observation: chex.Array,
    first: chex.Array,
    rows: chex.Array,
    key: chex.PRNGKey,
  ) -> tuple[chex.Array, Any, Carry, chex.PRNGKey]:
    key, now = jax.random.split(key)
    # The row of padding is behind the last: it reads that one and writes nothing.
    initial, carry = jax.tree.map(
      lambda every: every.at[rows].get(mode='clip'), (initials, carries)
    )
    carry = begun(initial, carry, first)
    action, carry, extras = agent.policy(params, carry, observation, now)
    return action, extras, _scattered(carries, rows, carry), key

  return act


def _scattered(carries: Carry, rows: chex.Array, carry: Carry) -> Carry:
  return jax.tree.map(
    lambda every, some: every.at[rows].set(some, mode='drop'), carries, carry
  )


_put = jax.jit(_scattered, donate_argnums=0)
