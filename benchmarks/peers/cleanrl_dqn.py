"""CleanRL's dqn_jax.py as its package ships it, with its defaults.

The script is run unchanged; the check looks on from the step of its environments, where
the script's own names are in reach.
"""

import contextlib
import os
import runpy
import sys
import tempfile
from importlib import metadata

import gymnasium
import target


def watched(check):
  """gymnasium's vector environment, which calls the check before some steps."""

  class Watched(gymnasium.vector.SyncVectorEnv):
    _steps = 0

    def step(self, actions):
      if self._steps == 0:
        check.begin()
      self._steps += len(actions)
      if check.due():
        script = sys._getframe(1).f_globals

        def act(observations):
          network, state = script['q_network'], script['q_state']
          return network.apply(state.params, observations).argmax(axis=-1)

        if check.reached(act, self._steps):
          raise SystemExit
      return super().step(actions)

  return Watched


def main():
  options = target.options()
  check = target.Target(
    options,
    ('cleanrl', 'jax', 'flax', 'stable-baselines3', 'gymnasium', 'numpy'),
    "dqn_jax.py's defaults: 1 environment, batch 128, an update every 10 steps",
  )
  gymnasium.vector.SyncVectorEnv = watched(check)
  script = metadata.distribution('cleanrl').locate_file('cleanrl/dqn_jax.py')
  sys.argv = [str(script), f'--seed={options.seed}']
  with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
      runpy.run_path(str(script), run_name='__main__')


if __name__ == '__main__':
  main()
