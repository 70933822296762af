"""Episodes as videos: of what Gymnasium draws, or of the pictures an agent sees."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import dm_env
import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import EnvironmentSpec
from callsheet.errors import UsageError
from callsheet.nodes.environments import Array, MakeEnvironment
from callsheet.nodes.gymnasium_environments import MakeGymnasium

Picture = NDArray[np.uint8]

# Of pictures that the agent sees: one a step, drawn larger to be recognized.
_SEEN_PER_SECOND, _ENLARGED = 15.0, 4


class Filmed:
  """A `VectorEnvironment` of one, whose first episode is written to a video.

  Args:
    make_environment: makes it.
    seed: of the environment.
    path: of the file; its ending says the format, `.mp4` or `.gif`.

  Raises:
    UsageError: the environment has no pictures, what writes the format isn't
      installed, or the file can't be written.
  """

  def __init__(self, make_environment: MakeEnvironment, seed: int, path: str) -> None:
    _require(path)
    import imageio.v2 as imageio

    self._picture: Callable[[dm_env.TimeStep], Picture]
    if isinstance(make_environment, MakeGymnasium):
      self._environment, drawn, rate = make_environment.filmed(seed)
      self._picture = lambda _: drawn()
    else:
      self._environment, rate = make_environment(1, seed), _SEEN_PER_SECOND
      if self._environment.spec().observation.dtype != np.uint8:
        raise UsageError(
          'there is no picture of this environment: its family draws none here, and '
          'the agent sees none'
        )
      self._picture = _seen
    self._over = False
    timing: dict[str, Any] = (
      {'duration': 1000 / rate, 'loop': 0} if path.endswith('.gif') else {'fps': rate}
    )
    try:
      self._writer = imageio.get_writer(path, **timing)
    except Exception as error:
      raise UsageError(f'no video can be written to {path}: {error}') from error

  @property
  def num_environments(self) -> int:
    """One."""
    return 1

  def spec(self) -> EnvironmentSpec:
    """See `VectorEnvironment.spec`."""
    return self._environment.spec()

  def reset(self) -> dm_env.TimeStep:
    """See `VectorEnvironment.reset`."""
    return self._shot(self._environment.reset())

  def step(self, action: Array) -> dm_env.TimeStep:
    """See `VectorEnvironment.step`."""
    return self._shot(self._environment.step(action))

  def close(self) -> None:
    """Ends the video and closes the environment."""
    self._writer.close()
    self._environment.close()

  def _shot(self, time_step: dm_env.TimeStep) -> dm_env.TimeStep:
    if not self._over:
      self._writer.append_data(self._picture(time_step))
    self._over = self._over or bool(time_step.step_type[0] == dm_env.StepType.LAST)
    return time_step


def _seen(time_step: dm_env.TimeStep) -> Picture:
  """The newest of the stacked pictures."""
  newest: Any = time_step.observation[0][..., -1]
  large = newest.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)
  return np.repeat(large[..., None], 3, axis=-1)


def _require(path: str) -> None:
  if not path.endswith(('.mp4', '.gif')):
    raise UsageError(f'--video takes FILE.mp4 or FILE.gif, got {path!r}')
  needed = {'imageio': 'imageio'}
  if path.endswith('.mp4'):
    needed['imageio_ffmpeg'] = 'imageio-ffmpeg'
  missing = [
    name for module, name in needed.items() if importlib.util.find_spec(module) is None
  ]
  if missing:
    gif = '; a FILE.gif needs imageio alone' if missing == ['imageio-ffmpeg'] else ''
    raise UsageError(
      f'{path} needs {" and ".join(missing)}: pip install "callsheet[video]"{gif}'
    )
