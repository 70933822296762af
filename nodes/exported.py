"""A policy as files that load with jax alone: no Callsheet, no network to rebuild.

It is StableHLO, by `jax.export`, with the parameters in it: what is played is what was
trained, whichever code made it. The other way, parameters and a function, would need
the agent's code in the version that wrote them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from callsheet.agents.base import Agent, Carry, Params
from callsheet.errors import UsageError
from callsheet.nodes import exported_texts
from callsheet.nodes.playing import Act

NOTES = 'policy.json'

_FUNCTION, _CARRY = 'policy.jax', 'carry.npz'
_PLATFORMS = ('cpu', 'cuda', 'tpu')


class Exported(NamedTuple):
  """A policy that was loaded.

  Attributes:
    act: as `playing.jit_policy` makes it; its params are None.
    notes: what `write` was told of it.
    first: of the carry's arrays, one row that an episode begins with, `[1, ...]`.
  """

  act: Act
  notes: dict[str, Any]
  first: tuple[np.ndarray[Any, Any], ...]

  def initial_carry(self, count: int) -> Carry:
    """For a batch of so many environments."""
    return tuple(jnp.asarray(np.repeat(leaf, count, axis=0)) for leaf in self.first)


def write(folder: str, agent: Agent, params: Params, notes: Mapping[str, Any]) -> None:
  """Writes the evaluation policy.

  Args:
    folder: gets `policy.jax`, what carries it between steps begin with, in `carry.npz`,
      `policy.py` with a loader, `policy.json` with the notes, and `README.md`.
    agent: whose policy it is.
    params: as `agent.parameters` gives them.
    notes: plain JSON, such as the environment's name.

  Raises:
    UsageError: the folder exists, or it can't be written.
  """
  try:
    os.makedirs(folder)
  except OSError as error:
    raise UsageError(
      f'{folder} can not be made ({error.strerror}); name another folder'
    ) from None
  function = _exported(agent, params)
  carry = jax.tree.leaves(agent.initial_carry(1))
  observation = agent.spec.observation
  about = {
    **notes,
    'agent': agent.name,
    'observation': [str(np.dtype(observation.dtype)), ['B', *observation.shape]],
    'carry': [[str(leaf.dtype), ['B', *leaf.shape[1:]]] for leaf in carry],
    'jax': jax.__version__,
    'platforms': list(_PLATFORMS),
  }
  place = Path(folder)
  try:
    (place / _FUNCTION).write_bytes(function.serialize())
    np.savez(place / _CARRY, *(np.asarray(leaf) for leaf in carry))
    (place / NOTES).write_text(json.dumps(about, indent=2) + '\n')
    (place / 'policy.py').write_text(exported_texts.LOADER)
    (place / 'README.md').write_text(exported_texts.README)
  except OSError as error:
    raise UsageError(f'{folder} can not be written ({error.strerror})') from None


def load(folder: str) -> Exported:
  """Reads what `write` wrote.

  Raises:
    UsageError: it is no such folder, or damaged.
  """
  place = Path(folder)
  try:
    notes = json.loads((place / NOTES).read_text())
    function = export.deserialize(bytearray((place / _FUNCTION).read_bytes()))
    with np.load(place / _CARRY) as saved:
      first = tuple(saved[name] for name in saved.files)
  except Exception as error:
    why = getattr(error, 'strerror', None) or error or type(error).__name__
    raise UsageError(f'{folder} holds no exported policy: {why}') from None

  @jax.jit
  def act(
    params: Params, carry: Carry, observation: Any, key: chex.PRNGKey
  ) -> tuple[chex.Array, Carry, chex.PRNGKey]:
    key, now = jax.random.split(key)
    action, carry = function.call(observation, carry, now)  # type: ignore[no-untyped-call]
    return action, carry, key

  return Exported(act, notes, first)


def _exported(agent: Agent, params: Params) -> export.Exported:
  """`(observation [B, ...], carry, key) -> (action [B], carry)`, of any B."""
  structure = jax.tree.structure(agent.initial_carry(1))

  def act(
    observation: Any, carry: tuple[Any, ...], key: Any
  ) -> tuple[Any, tuple[Any, ...]]:
    tree = jax.tree.unflatten(structure, carry)
    action, tree, _ = agent.evaluation_policy(params, tree, observation, key)
    return action, tuple(jax.tree.leaves(tree))

  [batch] = export.symbolic_shape('b')
  spec = agent.spec.observation
  dtype = jax.dtypes.canonicalize_dtype(spec.dtype)
  observation = jax.ShapeDtypeStruct((batch, *spec.shape), dtype)  # type: ignore[no-untyped-call]
  carry = tuple(
    jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype)  # type: ignore[no-untyped-call]
    for leaf in jax.tree.leaves(agent.initial_carry(1))
  )
  key = jax.ShapeDtypeStruct((2,), np.uint32)  # type: ignore[no-untyped-call]
  return export.export(jax.jit(act), platforms=_PLATFORMS)(observation, carry, key)
