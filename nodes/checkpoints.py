"""Pytrees of arrays as folders on disk, by orbax."""

from __future__ import annotations

import glob
import os
import shutil
import threading
from typing import Any

import jax
import numpy as np

from callsheet.errors import UsageError

_ALONE = 'array'
# Two that orbax writes at once in one process take each other's signals: its number of
# an operation is the process's. Both may then wait for ever.
_one_at_a_time = threading.Lock()


def save(directory: str, tree: Any) -> None:
  """Writes `tree` to `directory`; there is a whole checkpoint at every moment.

  It is written aside (`.new`) and renamed, while what was there waits as `.old`. Where
  a crash comes between the two renames, `restore` finds the old one. Of threads that
  call it at once, one writes after the other.

  Args:
    directory: of this one checkpoint; the folders above it are made.
    tree: a pytree of at least one array; of numpy's, where JAX has other processes.

  Raises:
    UsageError: it can't be written, the disk is full; what was there stays.
  """
  # orbax takes a while to import: processes that save nothing don't pay it.
  import orbax.checkpoint as ocp

  directory = os.path.abspath(directory)
  aside, old = _aside(directory), _old(directory)
  _remove_leftovers(aside)
  try:
    with (
      _one_at_a_time,
      ocp.StandardCheckpointer(multiprocessing_options=_alone_among()) as writer,
    ):
      writer.save(aside, _boxed(tree))
    if os.path.isdir(directory):
      shutil.rmtree(old, ignore_errors=True)
      os.rename(directory, old)
    os.rename(aside, directory)
  # orbax and what it writes with have no common exception for a full disk.
  except Exception as error:
    _remove_leftovers(aside)
    why = next(iter(str(error).splitlines()), type(error).__name__)
    raise UsageError(f'{directory} can not be written: {why}') from error
  shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(aside: str) -> None:
  """What a crash has left: whole ones and those that orbax was still writing."""
  for leftover in (aside, *glob.glob(f'{glob.escape(aside)}.orbax-checkpoint-tmp*')):
    shutil.rmtree(leftover, ignore_errors=True)


def _alone_among() -> Any:
  """orbax would wait for the other processes of a learner; this one needs none."""
  import orbax.checkpoint as ocp

  me = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=me, active_processes={me}, barrier_sync_key_prefix='callsheet'
  )


def restore(directory: str, like: Any) -> Any:
  """Reads what `save` wrote.

  Args:
    directory: as given to `save`.
    like: a pytree of the same structure, shapes and dtypes; where it has jax arrays,
      the result has, and on the same devices.

  Raises:
    UsageError: there is no checkpoint, or it has other arrays than `like`.
  """
  import orbax.checkpoint as ocp

  directory = os.path.abspath(directory)
  found = directory if os.path.isdir(directory) else _old(directory)
  if not os.path.isdir(found):
    raise UsageError(f'there is no checkpoint at {directory}')
  boxed = _boxed(like)
  try:
    with ocp.StandardCheckpointer(
      multiprocessing_options=_alone_among()
    ) as checkpointer:
      metadata = checkpointer.metadata(found).item_metadata
      if metadata is None:
        raise ValueError('it is damaged')
      # orbax would cast one dtype to another without a word.
      if difference := _difference(metadata.tree, boxed):
        raise ValueError(difference)
      restored = checkpointer.restore(found, boxed)
  except (ValueError, KeyError, OSError) as error:
    why = next(iter(str(error).splitlines()), type(error).__name__)
    raise UsageError(
      f'the checkpoint at {found} is not of this agent and configuration: {why}'
    ) from error
  return restored[_ALONE] if _alone(like) else restored


def _aside(directory: str) -> str:
  return f'{directory}.new'


def _old(directory: str) -> str:
  return f'{directory}.old'


def _boxed(tree: Any) -> Any:
  # orbax refuses a tree that is one array and nothing else.
  return {_ALONE: tree} if _alone(tree) else tree


def _alone(tree: Any) -> bool:
  return jax.tree_util.all_leaves([tree])


def _difference(saved: Any, like: Any) -> str:
  """The first array in which the two differ; empty if none does."""
  there, here = _arrays(saved), _arrays(like)
  for path in [*here, *there]:
    if path not in there:
      return f'{path!r} is missing there'
    if path not in here:
      return f'{path!r} is one too many there'
    if there[path] != here[path]:
      return f'{path!r} is {there[path]} there, expected {here[path]}'
  return ''


def _arrays(tree: Any) -> dict[str, str]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): _described(leaf)
    for path, leaf in leaves
  }


def _described(leaf: Any) -> str:
  if not hasattr(leaf, 'dtype'):
    leaf = np.asarray(leaf)
  return f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}'
