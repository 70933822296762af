"""Datasets to learn from offline: where transitions come from, and what is refused.

A source is one of:
  A run's folder, or one of checkpoints of the native replay: `callsheet run dqn
    --replay_checkpoint` leaves them. See `dataset_checkpoints`.
  `minari:pointmaze/umaze-v2`: a dataset of Minari (https://minari.farama.org) that is
    on this machine.
  `data.npz`: one array `[N, ...]` a column, of N transitions:
    `observation`, `action`, `reward`, `next_observation`;
    `discount`: the environment's own, 0 where it terminated; or else `terminal`,
      whether it did. With `timeout` too, a step that has both was only cut off.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from dm_env import specs
from numpy.typing import NDArray

from callsheet.agents.base import EnvironmentSpec
from callsheet.errors import UsageError
from callsheet.nodes import dataset_checkpoints, dataset_minari

Columns = dict[str, NDArray[Any]]

_NUMBER = specs.Array((), np.float32)
# What rounding may add to an action at its bound.
_ROUNDING = 1e-4


def columns_of(spec: EnvironmentSpec) -> dict[str, specs.Array]:
  """The columns of a dataset, in the order in which a batch has them."""
  return {
    'observation': spec.observation,
    'action': spec.action,
    'reward': _NUMBER,
    'discount': _NUMBER,
    'next_observation': spec.observation,
  }


def load(source: str, spec: EnvironmentSpec, discount: float) -> Columns:
  """All transitions of a dataset, `[N, ...]` each of `columns_of(spec)`.

  Their `discount` is what multiplies the value of `next_observation`, 0 past a terminal
  step. Of whole transitions from a replay it is as the run's agent wrote it, and so are
  its n-step returns; of anything else the agent's `discount` is in it once.

  Args:
    source: see the module.
    spec: of the environment that is learnt for.
    discount: the agent's, per step.

  Raises:
    UsageError: there is no such dataset, it doesn't fit the environment, or something
      in it is no number: names the dataset, the column, what was expected, what came.
  """
  if source.startswith(dataset_minari.PREFIX):
    found = dataset_minari.read(source, discount)
  elif source.endswith('.npz'):
    found = _read_npz(source, discount)
  elif Path(source).is_dir():
    found = dataset_checkpoints.read(source, discount)
  else:
    raise UsageError(
      f'no dataset {source!r}; expected the folder of a run that was made with '
      '--replay_checkpoint, a file data.npz, or a name such as '
      "'minari:D4RL/pointmaze/umaze-v2'"
    )
  return _checked(source, found, spec)


def _read_npz(source: str, discount: float) -> Columns:
  try:
    with np.load(source, allow_pickle=False) as file:
      found: Columns = {name: file[name] for name in file.files}
  except (OSError, ValueError, zipfile.BadZipFile) as error:
    why = getattr(error, 'strerror', None) or error
    raise UsageError(f'dataset {source!r} can not be read: {why}') from None
  if 'discount' in found:
    own = np.asarray(found['discount'])
  elif 'terminal' in found:
    terminal = np.asarray(found['terminal'], bool)
    if 'timeout' in found:
      terminal = terminal & ~np.asarray(found['timeout'], bool)
    own = ~terminal
  else:
    raise UsageError(
      f"dataset {source!r}: expected a column 'discount' or 'terminal', came "
      f'{sorted(found)}'
    )
  if own.dtype.kind not in 'fiub':
    raise UsageError(
      f"dataset {source!r}: column 'discount' expected numbers, came {own.dtype}"
    )
  found['discount'] = (own * np.float32(discount)).astype(np.float32)
  return found


def _checked(
  source: str, found: Mapping[str, NDArray[Any]], spec: EnvironmentSpec
) -> Columns:
  """The columns in the spec's dtypes, each in C order."""
  wanted = columns_of(spec)
  if missing := [name for name in wanted if name not in found]:
    raise UsageError(
      f'dataset {source!r}: no column {missing[0]!r}, came {sorted(found)}'
    )
  columns = {
    name: _column(source, name, found[name], column) for name, column in wanted.items()
  }
  lengths = {name: len(column) for name, column in columns.items()}
  if len(set(lengths.values())) > 1:
    raise UsageError(
      f'dataset {source!r}: expected as many rows in each column, came {lengths}'
    )
  if not len(columns['reward']):
    raise UsageError(f'dataset {source!r} is empty: expected at least one transition')
  return columns


def _column(
  source: str, name: str, came: NDArray[Any], spec: specs.Array
) -> NDArray[Any]:
  shape = tuple(spec.shape)
  if came.shape[1:] != shape or not came.ndim:
    raise _misfit(source, name, spec, _shown(came.dtype, came.shape[1:]))
  real = came.dtype.kind in 'fiub'
  if not real or not (
    np.can_cast(came.dtype, spec.dtype, 'same_kind')
    or (came.dtype.kind in 'iu' and spec.dtype.kind in 'iu')
  ):
    raise _misfit(source, name, spec, _shown(came.dtype, came.shape[1:]))
  if came.dtype.kind == 'f' and not (finite := np.isfinite(came)).all():
    wrong = np.argwhere(~finite)[0]
    raise UsageError(
      f'dataset {source!r}: column {name!r} holds {came[tuple(wrong)]} in row '
      f'{wrong[0]}, expected finite numbers; leave such transitions out'
    )
  _check_bounds(source, name, came, spec)
  return np.ascontiguousarray(came, spec.dtype)


def _check_bounds(
  source: str, name: str, came: NDArray[Any], spec: specs.Array
) -> None:
  low: Any
  high: Any
  if name == 'discount':
    low, high = 0, 1
  elif isinstance(spec, specs.BoundedArray) and (
    name == 'action' or isinstance(spec, specs.DiscreteArray)
  ):
    low, high = spec.minimum, spec.maximum
  elif spec.dtype.kind in 'iu':
    info = np.iinfo(spec.dtype)
    low, high = info.min, info.max
  else:
    return
  slack = _ROUNDING if spec.dtype.kind == 'f' else 0
  if len(came) and not ((came >= low - slack) & (came <= high + slack)).all():
    bounds = f'{np.min(low):g} to {np.max(high):g}'
    raise _misfit(
      source, name, spec, f'{came.min():g} to {came.max():g}', f' within {bounds}'
    )


def _misfit(
  source: str, name: str, spec: specs.Array, came: str, bounds: str = ''
) -> UsageError:
  return UsageError(
    f'dataset {source!r}: column {name!r} expected {_shown(spec.dtype, spec.shape)} a '
    f'row{bounds}, as the environment has it, came {came}; take the environment that '
    'it was recorded in: --env=...'
  )


def _shown(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
  return f'{np.dtype(dtype)} {list(shape)}'
