"""Pytrees on disk: whole at every moment, and the same bits again."""

from __future__ import annotations

import os
import shutil
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from callsheet.errors import UsageError
from callsheet.nodes import checkpoints


class State(NamedTuple):
  params: dict[str, jax.Array]
  opt_state: optax.OptState
  steps: jax.Array


def state(seed=0):
  params = {'torso/~/linear': jax.random.normal(jax.random.PRNGKey(seed), (3, 2))}
  return State(params, optax.adam(1e-3).init(params), jnp.int32(seed))


def assert_same(restored, tree):
  assert jax.tree.structure(restored) == jax.tree.structure(tree)
  for got, expected in zip(
    jax.tree.leaves(restored), jax.tree.leaves(tree), strict=True
  ):
    assert got.dtype == expected.dtype
    assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()


def test_what_is_restored_is_the_same_bit_for_bit(tmp_path):
  path = str(tmp_path / 'deep' / 'down')
  saved = state(3)
  checkpoints.save(path, saved)
  restored = checkpoints.restore(path, jax.tree.map(jnp.zeros_like, saved))
  assert_same(restored, saved)
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


@pytest.mark.parametrize(
  'tree',
  [
    jnp.arange(6.0),  # Nothing but an array, as of a table of values.
    {'array': np.ones(2, np.float32)},
    {
      'odd': [jnp.array([np.nan, -0.0], jnp.bfloat16), np.array(7, np.uint32)],
      'none': None,
    },
  ],
)
def test_any_tree_comes_back(tmp_path, tree):
  checkpoints.save(str(tmp_path / 'x'), tree)
  assert_same(checkpoints.restore(str(tmp_path / 'x'), tree), tree)


def test_the_new_one_takes_the_place_of_the_old_and_leaves_nothing_else(tmp_path):
  path = str(tmp_path / 'x')
  for seed in range(3):
    checkpoints.save(path, state(seed))
    assert os.listdir(tmp_path) == ['x']
    assert_same(checkpoints.restore(path, state()), state(seed))


@pytest.mark.filterwarnings('ignore:coroutine')
def test_a_save_that_fails_leaves_the_old_one_whole(tmp_path):
  path = str(tmp_path / 'x')
  checkpoints.save(path, state(1))
  with pytest.raises(Exception, match='deleted'):
    gone = state(2)
    gone.steps.delete()
    checkpoints.save(path, gone)
  assert_same(checkpoints.restore(path, state()), state(1))
  checkpoints.save(path, state(3))
  assert_same(checkpoints.restore(path, state()), state(3))
  assert os.listdir(tmp_path) == ['x']


def crash_at(patch, target):
  """The process dies just before it renames a folder to `target`."""
  rename = os.rename

  def renames(source, to):
    if os.fspath(to) == target:
      raise KeyboardInterrupt
    rename(source, to)

  patch.setattr(os, 'rename', renames)


@pytest.mark.parametrize('suffix', ['', '.old'])
def test_there_is_a_whole_one_wherever_a_crash_comes(tmp_path, monkeypatch, suffix):
  path = str(tmp_path / 'x')
  checkpoints.save(path, state(1))
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    crash_at(patch, path + suffix)
    checkpoints.save(path, state(2))
  assert len(os.listdir(tmp_path)) == 2
  assert_same(checkpoints.restore(path, state()), state(1))
  # Another crash behind the first doesn't take the last whole one either.
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    crash_at(patch, path)
    checkpoints.save(path, state(3))
  assert_same(checkpoints.restore(path, state()), state(1))
  checkpoints.save(path, state(4))
  assert os.listdir(tmp_path) == ['x']
  assert_same(checkpoints.restore(path, state()), state(4))


def test_leftovers_of_a_crash_are_removed(tmp_path):
  for name in ('x.new', 'x.new.orbax-checkpoint-tmp', 'x.old', 'x.newer'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'half').write_text('...')
  checkpoints.save(str(tmp_path / 'x'), state(1))
  assert sorted(os.listdir(tmp_path)) == ['x', 'x.newer']
  assert_same(checkpoints.restore(str(tmp_path / 'x'), state()), state(1))


def test_no_checkpoint_is_said(tmp_path):
  with pytest.raises(UsageError, match=f'^there is no checkpoint at {tmp_path}/none$'):
    checkpoints.restore(str(tmp_path / 'none'), state())


BASE = {'w': jnp.zeros((2, 3)), 'layers': [jnp.zeros(2, jnp.int32)]}


@pytest.mark.parametrize(
  ('like', 'message'),
  [
    (
      {**BASE, 'w': jnp.zeros((2, 4))},
      "'w' is float32[2, 3] there, expected float32[2, 4]",
    ),
    (
      {**BASE, 'w': jnp.zeros((2, 3), jnp.int32)},
      "'w' is float32[2, 3] there, expected int32[2, 3]",
    ),
    ({**BASE, 'b': jnp.zeros(1)}, "'b' is missing there"),
    ({'w': BASE['w']}, "'layers/0' is one too many there"),
    ({**BASE, 'layers': []}, "'layers/0' is one too many there"),
    (jnp.zeros(3), "'array' is missing there"),
  ],
)
def test_another_structure_is_refused_in_one_line(tmp_path, like, message):
  path = str(tmp_path / 'x')
  checkpoints.save(path, BASE)
  with pytest.raises(UsageError) as caught:
    checkpoints.restore(path, like)
  assert str(caught.value) == (
    f'the checkpoint at {path} is not of this agent and configuration: {message}'
  )


@pytest.mark.parametrize('missing', ['d', '_METADATA', 'manifest.ocdbt'])
def test_a_damaged_one_is_refused_in_one_line(tmp_path, missing):
  path = tmp_path / 'x'
  checkpoints.save(str(path), BASE)
  if (path / missing).is_dir():
    shutil.rmtree(path / missing)
  else:
    (path / missing).unlink()
  with pytest.raises(UsageError, match=f'^the checkpoint at {path} ') as caught:
    checkpoints.restore(str(path), BASE)
  assert '\n' not in str(caught.value)


def test_threads_that_save_at_once_do_not_wait_for_one_another_for_ever(tmp_path):
  """As a learner and an evaluator do that are threads of one process."""

  def save_often(seed):
    for _ in range(15):
      checkpoints.save(str(tmp_path / str(seed)), state(seed))

  threads = [
    threading.Thread(target=save_often, args=(seed,), daemon=True) for seed in range(4)
  ]
  for thread in threads:
    thread.start()
  for seed, thread in enumerate(threads):
    thread.join(60)
    assert not thread.is_alive()
    assert_same(checkpoints.restore(str(tmp_path / str(seed)), state()), state(seed))
