"""`callsheet eval RUN_FOLDER`: plays the policy that a run has saved."""

from __future__ import annotations

import os
import threading
from contextlib import closing

import jax
import numpy as np
from absl import flags

from callsheet.agents import registry
from callsheet.commands import environment_options, folders, help, saved_runs
from callsheet.commands.flags import new_flags, one_argument, parse
from callsheet.nodes import checkpoints
from callsheet.nodes.named_environments import make_named
from callsheet.nodes.playing import jit_policy, play_episodes

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
  arguments = parse(values, argv)
  if values.help:
    print(help.page(values, USAGE, {'playing': ('num_episodes', 'seed')}))
    return 0
  folder = one_argument(arguments, 'folder of a run', USAGE)
  config = folders.read_config(folder)
  entry = registry.find(config['agent'])
  agent_config = saved_runs.agent_config(config, folder)
  key = jax.random.PRNGKey(values.seed)
  options = environment_options.read(config['flags'].get('env_options'))
  make_environment = make_named(config['flags']['env'], evaluation=True, **options)
  with closing(make_environment(values.num_episodes, values.seed)) as environment:
    agent = entry.make(environment.spec(), agent_config)
    like = agent.parameters(jax.jit(agent.init)(key))
    params = checkpoints.restore(os.path.join(folder, 'checkpoint', 'policy'), like)
    returns = play_episodes(
      jit_policy(agent.evaluation_policy),
      params,
      agent.initial_carry(values.num_episodes),
      environment,
      key,
      threading.Event(),
    )
  assert returns is not None
  print(
    f'{config["agent"]} on {config["flags"]["env"]}: mean return '
    f'{np.mean(returns):.1f} over {len(returns)} episodes (std {np.std(returns):.1f}, '
    f'min {np.min(returns):.1f}, max {np.max(returns):.1f})'
  )
  return 0
