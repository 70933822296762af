"""Datasets: the same columns of every source, and one line for what doesn't fit."""

from __future__ import annotations

import os

import gymnasium
import numpy as np
import pytest
from dm_env import specs
from gymnasium import spaces

from callsheet.agents.base import EnvironmentSpec, NStep, Sequences, Table
from callsheet.agents.step_tables import step_table
from callsheet.errors import UsageError
from callsheet.nodes import dataset_checkpoints, datasets
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.writing import n_step_transitions

SPEC = EnvironmentSpec(
  specs.Array((3,), np.float32), specs.BoundedArray((1,), np.float32, -2.0, 2.0)
)
DISCRETE = EnvironmentSpec(SPEC.observation, specs.DiscreteArray(4, np.int32))
GAMMA = 0.9
# What Minari would miss.
ABOUT = dict.fromkeys(
  ('algorithm_name', 'author', 'author_email', 'code_permalink', 'description'), 'test'
)
# Of each episode its steps, and whether it terminated or was cut off.
EPISODES = ((3, True), (2, False), (4, True))


def episodes(discrete=False):
  """`observation` `[T + 1, 3]`, `action`, `reward` `[T]` and `terminal` of each."""
  generator = np.random.default_rng(0)
  made = []
  for length, terminal in EPISODES:
    action = generator.uniform(-2, 2, (length, 1)).astype(np.float32)
    if discrete:
      action = generator.integers(4, size=length).astype(np.int32)
    observation = generator.normal(size=(length + 1, 3)).astype(np.float32)
    reward = generator.normal(size=length).astype(np.float32)
    made.append((observation, action, reward, terminal))
  return made


def expected(made):
  """The columns that each source has to give, worked out step by step."""
  rows = [
    (observation[t], action[t], reward[t], ends, observation[t + 1])
    for observation, action, reward, terminal in made
    for t in range(len(reward))
    for ends in [terminal and t == len(reward) - 1]
  ]
  observation, action, reward, ended, following = (
    np.array(column) for column in zip(*rows, strict=True)
  )
  discount = np.where(ended, 0, GAMMA).astype(np.float32)
  return {
    'observation': observation,
    'action': action,
    'reward': reward,
    'discount': discount,
    'next_observation': following,
  }


def as_npz(place, made, **others):
  columns = expected(made)
  del columns['discount']
  terminal = [
    terminal and t == len(reward) - 1
    for _, _, reward, terminal in made
    for t in range(len(reward))
  ]
  path = str(place / 'data.npz')
  np.savez(path, **{**columns, 'terminal': np.array(terminal), **others})
  return path


def as_steps(made):
  """The time steps of one environment that plays all episodes, `[T, 1, ...]`."""
  steps = []
  for observation, action, reward, terminal in made:
    nothing = np.zeros_like(action[0])
    steps.append((0, observation[0], nothing, 0.0, 1.0))
    for t in range(len(reward)):
      last = t == len(reward) - 1
      discount = 0.0 if terminal and last else 1.0
      step_type = 2 if last else 1
      steps.append((step_type, observation[t + 1], action[t], reward[t], discount))
  step_type, observation, action, reward, discount = zip(*steps, strict=True)
  return {
    'step_type': np.array(step_type, np.int32)[:, None],
    'observation': np.array(observation)[:, None],
    'action': np.array(action)[:, None],
    'reward': np.array(reward, np.float32)[:, None],
    'discount': np.array(discount, np.float32)[:, None],
  }


def as_checkpoint(place, made, spec, writes):
  """That of a replay with a table of whole transitions, or of time steps."""
  if isinstance(writes, str):
    table = Table('t', datasets.columns_of(spec), 50)
  else:
    table = step_table(spec, writes, 50)
  folder = place / 'run' / dataset_checkpoints.IN_RUN
  replay = NativeReplay(
    [table], checkpoint_directory=str(folder), checkpoint_at_close=True
  )
  if isinstance(writes, str):
    replay.insert('t', expected(made))
  else:
    replay.append('t', 'actor', as_steps(made), fresh=True)
  replay.close()
  return str(place / 'run')


def as_minari(place, made, spec, monkeypatch):
  import minari
  from minari.data_collector.episode_buffer import EpisodeBuffer

  monkeypatch.setenv('MINARI_DATASETS_PATH', str(place / 'minari'))
  buffers = []
  for number, (observation, action, reward, terminal) in enumerate(made):
    last = np.arange(len(reward)) == len(reward) - 1
    buffers.append(
      EpisodeBuffer(
        id=number,
        observations=list(observation),
        actions=list(action),
        rewards=list(reward),
        terminations=list(last & terminal),
        truncations=list(last & (not terminal)),
      )
    )
  discrete = isinstance(spec.action, specs.DiscreteArray)
  minari.create_dataset_from_buffers(
    'callsheet/test-v0',
    buffer=buffers,
    observation_space=spaces.Box(-np.inf, np.inf, (3,), np.float32),
    action_space=spaces.Discrete(4) if discrete else spaces.Box(-2, 2, (1,)),
    **ABOUT,
  )
  return 'minari:callsheet/test-v0'


def in_order(columns):
  """Rows sorted by their rewards, which are all different."""
  order = np.argsort(columns['reward'])
  return {name: column[order] for name, column in columns.items()}


SOURCES = {
  'npz': lambda place, made, spec, patch: as_npz(place, made),
  'minari': as_minari,
  'transitions': lambda place, made, spec, patch: as_checkpoint(place, made, spec, ''),
  'steps': lambda place, made, spec, patch: as_checkpoint(
    place, made, spec, NStep('t', 1, GAMMA)
  ),
  'sequences': lambda place, made, spec, patch: as_checkpoint(
    place, made, spec, Sequences('t', 3, 3)
  ),
  'overlapping': lambda place, made, spec, patch: as_checkpoint(
    place, made, spec, Sequences('t', 3, 1)
  ),
  'crossing': lambda place, made, spec, patch: as_checkpoint(
    place, made, spec, Sequences('t', 2, 1, cross_episodes=True)
  ),
}


@pytest.mark.parametrize('discrete', [False, True])
@pytest.mark.parametrize('source', SOURCES)
def test_every_source_gives_the_same_columns(tmp_path, monkeypatch, source, discrete):
  spec, made = (DISCRETE if discrete else SPEC), episodes(discrete)
  name = SOURCES[source](tmp_path, made, spec, monkeypatch)
  columns = in_order(datasets.load(name, spec, GAMMA))
  wanted = in_order(expected(made))
  assert list(columns) == list(datasets.columns_of(spec))
  for column, values in wanted.items():
    assert columns[column].dtype == datasets.columns_of(spec)[column].dtype
    np.testing.assert_array_equal(columns[column], values, err_msg=column)


def test_transitions_of_several_steps_are_as_they_were_written(tmp_path):
  made = episodes()
  source = as_checkpoint(tmp_path, made, SPEC, NStep('t', 2, 0.5))
  steps = as_steps(made)
  window = n_step_transitions(
    steps['step_type'], steps['reward'][1:], steps['discount'][1:], 2, 0.5
  )
  columns = datasets.load(source, SPEC, GAMMA)
  wanted = window.complete[:, 0]
  np.testing.assert_allclose(columns['reward'], window.reward[wanted, 0])
  np.testing.assert_array_equal(columns['discount'], window.discount[wanted, 0])
  assert set(np.unique(columns['discount'])) == {0, 0.25, 0.5}


def test_shards_are_put_together(tmp_path):
  made = episodes()
  columns = expected(made)
  for shard, part in enumerate((slice(0, 4), slice(4, None))):
    replay = NativeReplay(
      [Table('t', datasets.columns_of(SPEC), 50)],
      checkpoint_directory=str(tmp_path / str(shard)),
      checkpoint_at_close=True,
    )
    replay.insert('t', {name: column[part] for name, column in columns.items()})
    replay.close()
  loaded = datasets.load(str(tmp_path), SPEC, GAMMA)
  for name, column in columns.items():
    np.testing.assert_array_equal(loaded[name], column)


def test_a_step_that_was_cut_off_keeps_its_discount(tmp_path):
  timeout = np.zeros(9, bool)
  timeout[2] = True
  columns = datasets.load(as_npz(tmp_path, episodes(), timeout=timeout), SPEC, GAMMA)
  assert columns['discount'][[1, 2, 8]] == pytest.approx([GAMMA, GAMMA, 0])


def test_an_own_discount_is_multiplied_by_the_agents(tmp_path):
  own = np.linspace(0, 1, 9)
  columns = datasets.load(as_npz(tmp_path, episodes(), discount=own), SPEC, GAMMA)
  np.testing.assert_allclose(columns['discount'], GAMMA * own, rtol=1e-6)


WRONG = {
  'observation': (
    np.zeros((9, 4), np.float32),
    "column 'observation' expected float32 [3] a row, as the environment has it, came "
    'float32 [4]; take the environment that it was recorded in: --env=',
  ),
  'next_observation': (
    np.full((9, 3), np.nan),
    "column 'next_observation' holds nan in row 0, expected finite numbers; leave such",
  ),
  'action': (
    np.full((9, 1), 3.0),
    "column 'action' expected float32 [1] a row within -2 to 2, as the environment has "
    'it, came 3 to 3; take',
  ),
  'reward': (
    np.array(['a'] * 9),
    "column 'reward' expected float32 [] a row, as the environment has it, came <U1 []",
  ),
  'discount': (np.full(9, 1.5), "column 'discount' expected float32 [] a row within 0"),
}


@pytest.mark.parametrize('column', WRONG)
def test_a_column_that_does_not_fit(tmp_path, column):
  came, message = WRONG[column]
  path = as_npz(tmp_path, episodes(), **{column: came})
  with pytest.raises(UsageError) as refused:
    datasets.load(path, SPEC, GAMMA)
  assert str(refused.value).startswith(f'dataset {path!r}: {message}')
  assert '\n' not in str(refused.value)


def test_continuous_actions_for_discrete_ones_and_the_reverse(tmp_path):
  with pytest.raises(UsageError, match=r"'action' expected int32 \[\] a row.*\[1\]"):
    datasets.load(as_npz(tmp_path, episodes()), DISCRETE, GAMMA)
  with pytest.raises(
    UsageError, match=r"'action' expected float32 \[1\] a.*int32 \[\]"
  ):
    datasets.load(as_npz(tmp_path, episodes(discrete=True)), SPEC, GAMMA)
  four = np.full(9, 4)
  with pytest.raises(UsageError, match=r'within 0 to 3, as .*, came 4 to 4; take'):
    datasets.load(as_npz(tmp_path, episodes(True), action=four), DISCRETE, GAMMA)


def test_rows_that_do_not_match(tmp_path):
  path = as_npz(tmp_path, episodes(), reward=np.zeros(8))
  with pytest.raises(UsageError, match=r"expected as many rows in each .*'reward': 8"):
    datasets.load(path, SPEC, GAMMA)


def test_columns_that_are_missing(tmp_path):
  columns = expected(episodes())
  path = str(tmp_path / 'data.npz')
  del columns['discount']
  np.savez(path, **columns)
  with pytest.raises(UsageError, match="a column 'discount' or 'terminal', came "):
    datasets.load(path, SPEC, GAMMA)
  np.savez(path, reward=columns['reward'], terminal=np.zeros(9, bool))
  with pytest.raises(UsageError, match="no column 'observation', came "):
    datasets.load(path, SPEC, GAMMA)
  np.savez(path, **{name: c[:0] for name, c in columns.items()}, terminal=np.zeros(0))
  with pytest.raises(UsageError, match='is empty: expected at least one transition'):
    datasets.load(path, SPEC, GAMMA)


def test_files_and_folders_that_are_no_dataset(tmp_path):
  with pytest.raises(UsageError, match=r'no dataset .*; expected the folder of a run '):
    datasets.load(str(tmp_path / 'nowhere'), SPEC, GAMMA)
  with pytest.raises(UsageError, match='can not be read: No such file'):
    datasets.load(str(tmp_path / 'nowhere.npz'), SPEC, GAMMA)
  (tmp_path / 'text.npz').write_text('text')
  with pytest.raises(UsageError, match=r"text\.npz' can not be read: "):
    datasets.load(str(tmp_path / 'text.npz'), SPEC, GAMMA)
  with pytest.raises(UsageError, match='there is no checkpoint of a replay in it; `c'):
    datasets.load(str(tmp_path), SPEC, GAMMA)


def test_a_checkpoint_of_several_tables_or_one_that_is_damaged(tmp_path):
  tables = [Table(name, datasets.columns_of(SPEC), 5) for name in ('a', 'b')]
  replay = NativeReplay(tables, checkpoint_directory=str(tmp_path / 'two'))
  replay.checkpoint()
  replay.close()
  with pytest.raises(UsageError, match=r"a replay of one table, came \['a', 'b'\]"):
    datasets.load(str(tmp_path / 'two'), SPEC, GAMMA)
  source = as_checkpoint(tmp_path, episodes(), SPEC, '')
  checkpoint = os.path.join(source, dataset_checkpoints.IN_RUN, 'replay-000000')
  with open(os.path.join(checkpoint, 'manifest.json'), 'a') as file:
    file.write('x')
  with pytest.raises(UsageError, match=r'each of the 1 checkpoints .* is damaged'):
    datasets.load(source, SPEC, GAMMA)


def test_a_dataset_that_minari_does_not_have(tmp_path, monkeypatch):
  monkeypatch.setenv('MINARI_DATASETS_PATH', str(tmp_path))
  with pytest.raises(UsageError, match='on this machine; `minari download nobody/n'):
    datasets.load('minari:nobody/nothing-v0', SPEC, GAMMA)


def test_observations_of_minari_in_a_dictionary(tmp_path, monkeypatch):
  import minari
  from minari.data_collector.episode_buffer import EpisodeBuffer

  monkeypatch.setenv('MINARI_DATASETS_PATH', str(tmp_path))
  buffer = EpisodeBuffer(
    id=0,
    observations={'a': [np.zeros(2, np.float32)] * 2},
    actions=[np.zeros(1, np.float32)],
    rewards=[0.0],
    terminations=[True],
    truncations=[False],
  )
  minari.create_dataset_from_buffers(
    'dict-v0',
    buffer=[buffer],
    observation_space=spaces.Dict({'a': spaces.Box(-1, 1, (2,))}),
    action_space=gymnasium.spaces.Box(-2, 2, (1,)),
    **ABOUT,
  )
  with pytest.raises(UsageError, match='its observations are of type dict, expected o'):
    datasets.load('minari:dict-v0', SPEC, GAMMA)
