"""Videos: a picture for each step of the first episode, or a line that says why not."""

from __future__ import annotations

import importlib.util
from contextlib import closing

import dm_env
import imageio.v2 as imageio
import numpy as np
import pytest
from dm_env import specs

from callsheet.errors import UsageError
from callsheet.nodes import filming
from callsheet.nodes.environments import make_dm_env
from callsheet.nodes.filming import Filmed
from callsheet.nodes.gymnasium_environments import make_gymnasium
from tests.nodes.small import countdowns

pytestmark = pytest.mark.timeout(60)


class Lamp(dm_env.Environment):
  """Shows a picture that gets brighter; an episode is four steps long."""

  def __init__(self):
    self._step = 0

  def reset(self):
    self._step = 0
    return dm_env.restart(self._shown())

  def step(self, action):
    self._step += 1
    if self._step == 4:
      return dm_env.termination(1.0, self._shown())
    return dm_env.transition(1.0, self._shown())

  def _shown(self):
    stack = np.zeros((6, 8, 2), np.uint8)
    stack[..., -1] = 60 * min(self._step, 4)
    return stack

  def observation_spec(self):
    return specs.Array((6, 8, 2), np.uint8)

  def action_spec(self):
    return specs.DiscreteArray(2)


def episode(filmed):
  """Its length in steps; two more are played, of the next episode."""
  time_step, length = filmed.reset(), 0
  while time_step.step_type[0] != dm_env.StepType.LAST:
    time_step = filmed.step(np.zeros(1, np.int32))
    length += 1
  for _ in range(2):
    filmed.step(np.zeros(1, np.int32))
  return length


def test_what_gymnasium_draws(tmp_path):
  path = str(tmp_path / 'cart.gif')
  with closing(Filmed(make_gymnasium('CartPole-v1'), 0, path)) as filmed:
    length = episode(filmed)
  pictures = imageio.mimread(path)
  # The format joins pictures that are the same.
  assert 2 <= len(pictures) <= length + 1
  assert pictures[0].shape[:2] == (400, 600)
  assert not np.array_equal(pictures[0], pictures[-1])


def test_what_the_agent_sees(tmp_path):
  path = str(tmp_path / 'lamp.gif')
  with closing(Filmed(make_dm_env(lambda seed: Lamp(), 'Lamp'), 0, path)) as filmed:
    assert episode(filmed) == 4
  brightness = [int(picture[..., :3].mean()) for picture in imageio.mimread(path)]
  assert brightness == pytest.approx([0, 60, 120, 180, 240], abs=4)


def test_what_has_no_picture(tmp_path):
  with pytest.raises(UsageError, match='there is no picture of this environment'):
    Filmed(countdowns, 0, str(tmp_path / 'x.gif'))


def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path, monkeypatch):
  find = importlib.util.find_spec
  hidden = {'imageio_ffmpeg'}
  monkeypatch.setattr(
    filming.importlib.util,
    'find_spec',
    lambda name: None if name in hidden else find(name),
  )
  make = make_gymnasium('CartPole-v1')
  wanted = r'x.mp4 needs imageio-ffmpeg: pip install "callsheet\[video\]"; a FILE.gif'
  with pytest.raises(UsageError, match=wanted):
    Filmed(make, 0, 'x.mp4')
  hidden.add('imageio')
  with pytest.raises(UsageError, match=r'x.gif needs imageio: pip install'):
    Filmed(make, 0, 'x.gif')
  with pytest.raises(UsageError, match=r"takes FILE.mp4 or FILE.gif, got 'x.avi'"):
    Filmed(make, 0, 'x.avi')
  with pytest.raises(UsageError, match='no video can be written to'):
    hidden.clear()
    Filmed(make, 0, str(tmp_path / 'no' / 'such' / 'folder' / 'x.gif'))
