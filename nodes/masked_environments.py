"""CartPole without its velocities, which an agent has to remember positions for.

Importing this names `MaskedCartPole-v1` to Gymnasium. It has the length and the target
return of CartPole-v1; a policy without a memory can't balance the pole for long.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import TransformObservation
from gymnasium.wrappers.vector import TransformObservation as TransformObservations

# Of position, velocity, angle, angular velocity.
_SEEN = (0, 2)


def masked_cartpole(**arguments: Any) -> gymnasium.Env[Any, Any]:
  """One environment; see `CartPoleEnv` for the arguments."""
  environment = CartPoleEnv(**arguments)
  return TransformObservation(
    environment, _positions, _seen(environment.observation_space)
  )


def masked_cartpoles(num_envs: int, **arguments: Any) -> VectorEnv[Any, Any, Any]:
  """A batch of them; see `CartPoleVectorEnv` for the arguments."""
  environment = CartPoleVectorEnv(num_envs, **arguments)
  return TransformObservations(
    environment,
    _positions,
    single_observation_space=_seen(environment.single_observation_space),
  )


def _positions(observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
  return observation[..., _SEEN]


def _seen(space: Any) -> Box:
  return Box(_positions(space.low), _positions(space.high), dtype=np.float32)


if 'MaskedCartPole-v1' not in gymnasium.registry:
  _like = gymnasium.spec('CartPole-v1')
  gymnasium.register(
    'MaskedCartPole-v1',
    entry_point=f'{__name__}:masked_cartpole',
    vector_entry_point=f'{__name__}:masked_cartpoles',
    max_episode_steps=_like.max_episode_steps,
    reward_threshold=_like.reward_threshold,
  )
