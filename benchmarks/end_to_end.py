"""The DQN graph against a bare loop of the same functions: one line of JSON.

python benchmarks/end_to_end.py [--seconds 10] [--rounds 3]

The graph is that of `callsheet run dqn`: 2 actors of 16 environments, native replay,
learner, evaluator, recorder, counter, each a process. The floor is one process that
does nothing but call the same jitted policy, the same environments and the same jitted
updates, as many updates for each environment step as the graph did, on a batch that
never changes. What is compared is environment steps per CPU second: cores that wait
cost nothing. `cpu_seconds_per_1000_steps` says which node takes what; what the floor
takes for policy, environments and updates stands beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from callsheet.agents.base import Agent, Batch
from callsheet.agents.dqn import DQNConfig, dqn
from callsheet.launch import Processes, start
from callsheet.launch.devices import process_environment
from callsheet.nodes.gymnasium_environments import make_gymnasium
from callsheet.nodes.native_replay import NativeReplay
from callsheet.programs.actor_learner import actor_learner
from callsheet.programs.resources import Resources

ENVIRONMENT = 'CartPole-v1'
ACTORS, ENVIRONMENTS, BLOCK, DISPATCH = 2, 16, 16, 16
WARM_UP_STEPS = 400
TARGET = 0.8


def make_agent() -> Agent:
  environment = make_gymnasium(ENVIRONMENT)(1, 0)
  agent = dqn(environment.spec(), DQNConfig())
  environment.close()
  return agent


def graph(seconds: float) -> dict[str, Any]:
  """What the launched program does in so many seconds, once it is warm."""
  agent = make_agent()
  program = actor_learner(
    agent,
    make_gymnasium(ENVIRONMENT),
    num_actors=ACTORS,
    num_environments=ENVIRONMENTS,
    updates_per_dispatch=DISPATCH,
    make_replay=NativeReplay,
  )
  with (
    tempfile.TemporaryDirectory() as logs,
    start(program, Processes(log_directory=logs, echo=False)) as running,
  ):
    counter = running.client('counter')
    while counter.counts().get('learner_steps', 0) < WARM_UP_STEPS:
      if running.wait(timeout=0.1):
        raise RuntimeError('the program ended before it was measured')
    processes = _processes(logs)
    counts, before, begun = counter.counts(), _cpu(processes), time.perf_counter()
    running.wait(timeout=seconds)
    later, after = counter.counts(), _cpu(processes)
    passed = time.perf_counter() - begun
  steps = later['actor_steps'] - counts['actor_steps']
  updates = later['learner_steps'] - counts['learner_steps']
  spent = {name: after[name] - before[name] for name in processes}
  return {
    'actor_steps_per_s': steps / passed,
    'learner_steps_per_s': updates / passed,
    'cores_used': sum(spent.values()) / passed,
    'steps_per_cpu_second': steps / sum(spent.values()),
    'updates_per_step': updates / steps,
    'cpu_seconds_per_1000_steps': {
      name: 1000 * each / steps for name, each in sorted(spent.items())
    },
  }


def _processes(logs: str) -> dict[str, psutil.Process]:
  """Each unit's process, as its log names it."""
  found = {}
  for log in Path(logs).glob('*.log'):
    numbers = re.findall(r'\] process (\d+) starts', log.read_text())
    found[log.stem] = psutil.Process(int(numbers[-1]))
  return found


def _cpu(processes: dict[str, psutil.Process]) -> dict[str, float]:
  times = {name: process.cpu_times() for name, process in processes.items()}
  return {name: each.user + each.system for name, each in times.items()}


def floor(seconds: float, updates_per_step: float) -> dict[str, Any]:
  """The same functions in one loop, in this process."""
  import jax

  from callsheet.nodes.playing import jit_policy

  agent = make_agent()
  environment = make_gymnasium(ENVIRONMENT)(ENVIRONMENTS, 0)
  act = jit_policy(agent.policy)
  dispatch = jax.jit(
    lambda state, batches: jax.lax.scan(agent.update, state, batches), donate_argnums=0
  )
  state = jax.jit(agent.init)(jax.random.PRNGKey(0))
  params = jax.tree.map(lambda leaf: np.array(leaf), agent.parameters(state))
  params = jax.device_put(params)
  carry, key = agent.initial_carry(ENVIRONMENTS), jax.random.PRNGKey(1)
  time_step, batches = environment.reset(), _batches(agent)
  spent = dict.fromkeys(('policy', 'environments', 'updates'), 0.0)
  steps = updates = 0

  @contextlib.contextmanager
  def part(name: str) -> Iterator[None]:
    since = time.process_time()
    yield
    spent[name] += time.process_time() - since

  begun = cpu = 0.0
  while not begun or time.perf_counter() - begun < seconds:
    for _ in range(BLOCK):
      with part('policy'):
        action, carry, key = act(params, carry, time_step.observation, key)
        taken = np.asarray(action)
      with part('environments'):
        time_step = environment.step(taken)
      steps += ENVIRONMENTS
    with part('updates'):
      while updates < steps * updates_per_step:
        state, metrics = dispatch(state, batches)
        np.asarray(metrics['loss'])
        updates += DISPATCH
    if not begun:  # All is compiled.
      begun, cpu, steps, updates = time.perf_counter(), time.process_time(), 0, 0
      spent = dict.fromkeys(spent, 0.0)
  passed, used = time.perf_counter() - begun, time.process_time() - cpu
  return {
    'actor_steps_per_s': steps / passed,
    'learner_steps_per_s': updates / passed,
    'cores_used': used / passed,
    'steps_per_cpu_second': steps / used,
    'cpu_seconds_per_1000_steps': {
      name: 1000 * each / steps for name, each in spent.items()
    },
  }


def _batches(agent: Agent) -> Batch:
  table = next(t for t in agent.tables if t.name == agent.samples.table)
  generator, leading = np.random.default_rng(0), (DISPATCH, agent.samples.batch_size)
  data = {
    name: generator.integers(0, 2, (*leading, *spec.shape)).astype(spec.dtype)
    for name, spec in table.columns.items()
  }
  probabilities = np.full(leading, 1e-3, np.float32)
  return Batch(data, probabilities, np.full(DISPATCH, 1000, np.int32))


def floor_process(seconds: float, updates_per_step: float) -> dict[str, Any]:
  """The floor in a process of its own, in a node's environment."""
  done = subprocess.run(
    [sys.executable, __file__, f'--seconds={seconds}', f'--floor={updates_per_step}'],
    env=process_environment(Resources(), os.environ),
    stdout=subprocess.PIPE,
    check=True,
    text=True,
  )
  found: dict[str, Any] = json.loads(done.stdout)
  return found


def median(rounds: list[Any]) -> Any:
  """The median of each figure over rounds of the same shape."""
  if isinstance(rounds[0], dict):
    return {name: median([each[name] for each in rounds]) for name in rounds[0]}
  return round(statistics.median(rounds), 3)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seconds', type=float, default=10.0)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--floor', type=float, help='the floor alone: updates per step')
  options = parser.parse_args()
  if options.floor is not None:
    print(json.dumps(floor(options.seconds, options.floor)))
    return
  graphs, floors, shares, without = [], [], [], []
  for _ in range(options.rounds):
    graphs.append(graph(options.seconds))
    floors.append(floor_process(options.seconds, graphs[-1]['updates_per_step']))
    shares.append(
      graphs[-1]['steps_per_cpu_second'] / floors[-1]['steps_per_cpu_second']
    )
    # The floor evaluates nothing; what the graph's evaluator takes is no overhead.
    spent = graphs[-1]['cpu_seconds_per_1000_steps']
    without.append(shares[-1] / (1 - spent['evaluator'] / sum(spent.values())))
    print(f'share of the floor: {shares[-1]:.2f}', file=sys.stderr)
  share = median(shares)
  figures = {'share': share, 'target': TARGET, 'reached': share >= TARGET}
  print(
    json.dumps(
      {
        'benchmark': 'end_to_end',
        **figures,
        'share_without_evaluator': median(without),
        'graph': median(graphs),
        'floor': median(floors),
      }
    )
  )


if __name__ == '__main__':
  main()
