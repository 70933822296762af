"""Seconds from `callsheet run dqn` to the first learner step: one line of JSON.

Cold is with an empty compilation cache, warm with what the run before has left there.
The floor, in the same rounds: one bare process that imports jax, haiku, optax and
gymnasium and jits the same update once, with a warm cache of its own.

  python benchmarks/startup.py --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The command itself, with a recorder that notes when the learner first reports: that is
# right behind its first dispatch.
RUN = """
import os, sys, time
from callsheet.commands import compilation, main

compilation.keep(os.environ)
main.stay_single(os.environ)
from callsheet.programs import actor_learner

class Noting(actor_learner.Recorder):
  def record(self, role, figures, index=0):
    if role == 'learner' and not os.path.exists('first'):
      with open('first.new', 'w') as file:
        file.write(repr(time.time()))
      os.rename('first.new', 'first')
    super().record(role, figures, index)

actor_learner.Recorder = Noting
main.main()
"""

FLOOR = """
import os
from callsheet.commands import compilation

compilation.keep(os.environ)
import gymnasium, haiku, jax, optax
import jax.numpy as jnp
from callsheet.agents import dqn
from callsheet.agents.base import Batch, EnvironmentSpec
from dm_env import specs
import numpy as np

gymnasium.make_vec('CartPole-v1', 8).reset(seed=0)
spec = EnvironmentSpec(specs.Array((4,), np.float32), specs.DiscreteArray(2, np.int32))
agent = dqn.dqn(spec)
state = jax.jit(agent.init)(jax.random.PRNGKey(0))
K, B = 8, agent.samples.batch_size
batch = Batch(
  {name: np.ones((K, B, *column.shape), column.dtype)
   for name, column in agent.tables[0].columns.items()},
  np.ones((K, B), np.float32), np.full(K, 1000, np.int32))
update = jax.jit(lambda state, batch: jax.lax.scan(agent.update, state, batch),
                 donate_argnums=0)
jax.block_until_ready(update(state, batch))
"""

PATIENCE = 300.0


def first_step(cache: str) -> float:
  """Seconds from the start of the command to the learner's first report."""
  with tempfile.TemporaryDirectory(prefix='startup-') as place:
    note = Path(place, 'first')
    environment = {**os.environ, 'XDG_CACHE_HOME': cache, 'JAX_PLATFORMS': 'cpu'}
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)
    begun = time.time()
    with open(Path(place, 'output'), 'w+') as output:
      process = subprocess.Popen(
        [sys.executable, '-c', RUN, 'run', 'dqn', '--target_return=1e9'],
        cwd=place,
        env=environment,
        stdout=output,
        stderr=output,
      )
      while not note.exists() and process.poll() is None:
        if time.time() - begun > PATIENCE:
          break
        time.sleep(0.005)
      process.send_signal(signal.SIGINT)
      process.wait()
      if not note.exists():
        output.seek(0)
        raise SystemExit(f'no learner step: {output.read()}')
    return float(note.read_text()) - begun


def floor(cache: str) -> float:
  """Seconds of the bare process."""
  environment = {**os.environ, 'XDG_CACHE_HOME': cache, 'JAX_PLATFORMS': 'cpu'}
  environment.pop('JAX_COMPILATION_CACHE_DIR', None)
  begun = time.time()
  subprocess.run([sys.executable, '-c', FLOOR], env=environment, check=True)
  return time.time() - begun


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--rounds', type=int, default=5, help='medians over so many')
  rounds = parser.parse_args().rounds
  if rounds < 1:
    parser.error(f'--rounds is {rounds}, expected at least 1')
  seconds: dict[str, list[float]] = {'cold': [], 'warm': [], 'floor': []}
  with tempfile.TemporaryDirectory(prefix='startup-floor-') as bare:
    floor(bare)
    for _ in range(rounds):
      with tempfile.TemporaryDirectory(prefix='startup-cache-') as cache:
        seconds['cold'].append(first_step(cache))
        seconds['warm'].append(first_step(cache))
      seconds['floor'].append(floor(bare))
  ratios = [
    warm / least for warm, least in zip(seconds['warm'], seconds['floor'], strict=True)
  ]
  figures = {
    'benchmark': 'startup',
    'rounds': rounds,
    'cold_seconds': statistics.median(seconds['cold']),
    'warm_seconds': statistics.median(seconds['warm']),
    'warm_seconds_range': [min(seconds['warm']), max(seconds['warm'])],
    'floor_seconds': statistics.median(seconds['floor']),
    'warm_to_floor': statistics.median(ratios),
    'target_warm_seconds': 6.0,
    'load_average': os.getloadavg()[0],
    'cpus': os.cpu_count(),
    'python': sys.version.split()[0],
  }
  print(json.dumps(figures))


if __name__ == '__main__':
  main()
