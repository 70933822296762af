"""`callsheet eval FOLDER`: plays the policy that a run has saved, or exported."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from callsheet.agents import registry
from callsheet.agents.base import Agent, Carry, EnvironmentSpec, Params
from callsheet.commands import environment_options, folders, help, saved_runs
from callsheet.commands.flags import new_flags, one_argument, parse
from callsheet.nodes import checkpoints, exported
from callsheet.nodes.environments import MakeEnvironment, VectorEnvironment
from callsheet.nodes.filming import Filmed
from callsheet.nodes.named_environments import make_named
from callsheet.nodes.playing import Act, jit_policy, play_episodes

USAGE = 'callsheet eval runs/NAME'


def evaluate(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  values = new_flags()
  flags.DEFINE_integer(
    'num_episodes', 20, 'Episodes to play.', lower_bound=1, flag_values=values
  )
  flags.DEFINE_integer(
    'seed', 0, 'Of the environments and the policy.', lower_bound=0, flag_values=values
  )
  flags.DEFINE_string(
    'video', None, 'FILE.mp4 or FILE.gif for one more episode.', flag_values=values
  )
  arguments = parse(values, argv)
  if values.help:
    print(help.page(values, USAGE, {'playing': ('num_episodes', 'seed', 'video')}))
    return 0
  folder = one_argument(arguments, 'folder of a run', USAGE)
  about, make_environment = _environment(folder)
  video = values.video
  filmed = None if video is None else Filmed(make_environment, values.seed, video)
  with closing(make_environment(values.num_episodes, values.seed)) as environment:
    played = _played(folder, about, environment.spec())
    returns = _play(played, environment, values.seed)
  print(
    f'{about["agent"]} on {about["env"]}: mean return '
    f'{np.mean(returns):.1f} over {len(returns)} episodes (std {np.std(returns):.1f}, '
    f'min {np.min(returns):.1f}, max {np.max(returns):.1f})'
  )
  if filmed is not None:
    with closing(filmed):
      [shown] = _play(played, filmed, values.seed)
    print(f'a return of {shown:.1f} in {video}')
  return 0


class _Played(NamedTuple):
  act: Act
  params: Params
  initial_carry: Any


def policy(
  folder: str, saved: dict[str, Any], spec: EnvironmentSpec
) -> tuple[Any, Any]:
  """The agent of a run and the parameters of its best policy.

  Args:
    folder: of the run.
    saved: its `config.json`.
    spec: of its environment.

  Raises:
    UsageError: it has saved none, or another version of it.
  """
  agent: Agent = registry.find(saved['agent']).make(
    spec, saved_runs.agent_config(saved, folder)
  )
  like = agent.parameters(jax.jit(agent.init)(jax.random.PRNGKey(0)))
  return agent, checkpoints.restore(os.path.join(folder, 'checkpoint', 'policy'), like)


def _environment(folder: str) -> tuple[dict[str, Any], MakeEnvironment]:
  """What is said of the policy, and what it is played in."""
  if os.path.exists(os.path.join(folder, exported.NOTES)):
    about = exported.load(folder).notes
  else:
    saved = folders.read_config(folder)
    about = saved_runs.about(saved)
  options = environment_options.read(about['env_options'])
  return about, make_named(about['env'], evaluation=True, **options)


def _played(folder: str, about: dict[str, Any], spec: EnvironmentSpec) -> _Played:
  if os.path.exists(os.path.join(folder, exported.NOTES)):
    loaded = exported.load(folder)
    return _Played(loaded.act, None, loaded.initial_carry)
  agent, params = policy(folder, folders.read_config(folder), spec)
  return _Played(jit_policy(agent.evaluation_policy), params, agent.initial_carry)


def _play(played: _Played, environment: VectorEnvironment, seed: int) -> Any:
  carry: Carry = played.initial_carry(environment.num_environments)
  returns = play_episodes(
    played.act,
    played.params,
    carry,
    environment,
    jax.random.PRNGKey(seed),
    threading.Event(),
  )
  assert returns is not None
  return returns
