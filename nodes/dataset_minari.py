"""Transitions from a dataset of Minari: https://minari.farama.org."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from callsheet.errors import UsageError

PREFIX = 'minari:'


def read(source: str, discount: float) -> dict[str, NDArray[Any]]:
  """The transitions of all its episodes, in order; nothing is downloaded.

  Args:
    source: `minari:` and the dataset's id.
    discount: the agent's, per step.

  Raises:
    UsageError: Minari isn't installed, there is no such dataset on this machine, it
      can't be read, or its observations or actions aren't single arrays.
  """
  try:
    import minari
  except ImportError as error:
    raise UsageError(
      f'dataset {source!r}: Minari is not installed ({error}); pip install '
      "'callsheet[minari]'"
    ) from None
  name = source.removeprefix(PREFIX)
  try:
    episodes = list(minari.load_dataset(name))
  except FileNotFoundError:
    raise UsageError(
      f'dataset {source!r}: there is no such dataset on this machine; `minari download '
      f'{name}` gets it, `minari list local` shows what there is'
    ) from None
  except (OSError, ValueError, ImportError) as error:
    raise UsageError(
      f'dataset {source!r} can not be read: {" ".join(str(error).split())}'
    ) from None
  if not episodes:
    raise UsageError(f'dataset {source!r} is empty: expected at least one episode')
  for column in ('observations', 'actions'):
    came = getattr(episodes[0], column)
    if not isinstance(came, np.ndarray):
      raise UsageError(
        f'dataset {source!r}: its {column} are of type {type(came).__name__}, expected '
        'one array; write them as a flat one into a file: data.npz'
      )
  ended = np.concatenate([each.terminations for each in episodes])
  return {
    'observation': np.concatenate([each.observations[:-1] for each in episodes]),
    'action': np.concatenate([each.actions for each in episodes]),
    'reward': np.concatenate([each.rewards for each in episodes]),
    'discount': np.where(ended, 0, discount).astype(np.float32),
    'next_observation': np.concatenate([each.observations[1:] for each in episodes]),
  }
