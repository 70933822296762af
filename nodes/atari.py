"""Atari as Machado et al. 2018 have it (https://arxiv.org/abs/1709.06009), by ale-py.

An action holds for four frames, of which the last two are laid over each other, and is
repeated with probability 0.25 at each of them, whatever is chosen next. What is seen
are four such pictures in grey, 84 by 84 pixels, the newest last. An episode ends with
the game, not with a life, or is cut off after 108,000 frames: half an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dm_env
import gymnasium
import numpy as np
from dm_env import specs
from gymnasium.vector import VectorEnv

from callsheet.agents.base import EnvironmentSpec
from callsheet.errors import UsageError
from callsheet.nodes import environment_families
from callsheet.nodes.checked_environments import CheckedVector
from callsheet.nodes.environments import (
  Array,
  VectorEnvironment,
  check_num_environments,
)
from callsheet.nodes.gymnasium_environments import GymnasiumVector


@dataclass(frozen=True)
class MakeAtari:
  """Makes batches of one game, stepped in ale-py's own threads.

  Attributes:
    env_id: `ALE/Pong-v5`.
    repeat_action_probability: of sticky actions; 0 for none.
    full_action_space: all 18 actions; else those that mean something in the game.
    frame_skip: frames that an action is held for.
    num_stacked: pictures that are seen.
    screen_size: pixels of a picture, each way.
    max_frames: of an episode.
    reward_clipping: rewards are cut to [-1, 1], but not in an evaluation.
    zero_discount_on_life_loss: no value is expected behind the loss of a life, but not
      in an evaluation; the episode goes on.
    num_threads: of each batch.
    evaluation: true scores, as they are published.
  """

  env_id: str
  repeat_action_probability: float = 0.25
  full_action_space: bool = False
  frame_skip: int = 4
  num_stacked: int = 4
  screen_size: int = 84
  max_frames: int = 108_000
  reward_clipping: bool = True
  zero_discount_on_life_loss: bool = False
  num_threads: int = 1
  evaluation: bool = False

  def __post_init__(self) -> None:
    if not 0 <= self.repeat_action_probability < 1:
      raise self._wrong('repeat_action_probability', 'at least 0 and below 1')
    for name in ('frame_skip', 'num_stacked', 'screen_size', 'max_frames'):
      if getattr(self, name) < 1:
        raise self._wrong(name, 'at least 1')

  def __call__(self, num_environments: int, seed: int) -> VectorEnvironment:
    check_num_environments(num_environments)
    environment_families.register(self.env_id)  # This may be a process of its own.
    environment = gymnasium.make_vec(
      self.env_id,
      num_environments,
      vectorization_mode='vector_entry_point',
      repeat_action_probability=self.repeat_action_probability,
      full_action_space=self.full_action_space,
      frameskip=self.frame_skip,
      stack_num=1,
      img_height=self.screen_size,
      img_width=self.screen_size,
      max_num_frames_per_episode=self.max_frames,
      reward_clipping=self.reward_clipping and not self.evaluation,
      noop_max=0,
      use_fire_reset=False,
      num_threads=self.num_threads,
    )
    vector = AtariVector(
      environment,
      seed,
      num_stacked=self.num_stacked,
      zero_discount_on_life_loss=self.zero_discount_on_life_loss
      and not self.evaluation,
    )
    return CheckedVector(vector, self.env_id, seed)

  def _wrong(self, name: str, expected: str) -> UsageError:
    return UsageError(
      f'{self.env_id}: {name} is {getattr(self, name)}, expected {expected}'
    )


class AtariVector:
  """Stacks the pictures of an `ale_py.AtariVectorEnv`; see `MakeAtari`.

  ale-py's own stacks have black pictures before an episode's first, along the first
  axis; here the first one is repeated, along the last axis.

  Args:
    environment: shows one picture each, grey.
    seed: of the sticky actions.
    num_stacked: pictures of an observation.
    zero_discount_on_life_loss: the discount of a step that loses a life is 0.
  """

  def __init__(
    self,
    environment: VectorEnv[Any, Any, Any],
    seed: int,
    *,
    num_stacked: int = 4,
    zero_discount_on_life_loss: bool = False,
  ) -> None:
    # Each its own, of 31 bits: from one number ale-py would count on.
    seeds = np.random.SeedSequence(seed).generate_state(environment.num_envs) >> 1
    self._environment: VectorEnv[Any, Any, Any] | None = environment
    self._vector = GymnasiumVector(environment, seeds.astype(np.int64))
    self._count = self._vector.num_environments
    picture = self._vector.spec().observation
    height, width = picture.shape[1:]
    self._spec = EnvironmentSpec(
      specs.BoundedArray(
        (height, width, num_stacked), picture.dtype, 0, 255, picture.name
      ),
      self._vector.spec().action,
    )
    self._pictures = [np.zeros((self._count, height, width), picture.dtype)]
    self._pictures *= num_stacked
    self._zero_discount = zero_discount_on_life_loss
    self._lives = np.zeros(self._count, np.int32)

  @property
  def num_environments(self) -> int:
    return self._count

  def spec(self) -> EnvironmentSpec:
    return self._spec

  def reset(self) -> dm_env.TimeStep:
    return self._stacked(self._vector.reset())

  def step(self, action: Array) -> dm_env.TimeStep:
    return self._stacked(self._vector.step(action))

  def close(self) -> None:
    """Ends its threads, which ale-py does when nobody holds it any more."""
    if self._environment is not None:
      self._environment.close()
      vars(self._environment.unwrapped).pop('ale', None)
      self._environment = None

  def _stacked(self, time_step: dm_env.TimeStep) -> dm_env.TimeStep:
    newest = time_step.observation[:, 0]
    first = time_step.step_type == dm_env.StepType.FIRST
    self._pictures = [*self._pictures[1:], newest]
    if first.any():
      self._pictures = [
        np.where(first[:, None, None], newest, older) for older in self._pictures
      ]
    lives = np.array(self._vector.info['lives'])
    if self._zero_discount:
      lost = (lives < self._lives) & (time_step.step_type == dm_env.StepType.MID)
      time_step = time_step._replace(
        discount=np.where(lost, 0, time_step.discount).astype(np.float32)
      )
    self._lives = lives
    return time_step._replace(observation=np.stack(self._pictures, axis=-1))
