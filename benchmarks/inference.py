"""Actors that ask a server against actors with a policy of their own: one line of JSON.

python benchmarks/inference.py [--actors 1,2,4,8] [--seconds 5] [--rounds 3]

Each actor steps 16 CartPoles by a network of 3 x 1024 units, in a process of its own.
The replay throws everything away, the parameters are always new. What is compared is
environment steps per second, 'server' over 'actor', in the same round. The server has
all the cores of the machine, or its accelerator with `--gpus 1`; an actor has one core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from typing import Any

import jax
import numpy as np

from callsheet.agents.base import Agent
from callsheet.agents.dqn import DQNConfig, dqn
from callsheet.launch import Processes, start
from callsheet.nodes.actor import Actor
from callsheet.nodes.counter import Counter
from callsheet.nodes.gymnasium_environments import make_gymnasium
from callsheet.nodes.inference import InferenceServer
from callsheet.nodes.variables import Parameters
from callsheet.programs.program import Node, Program
from callsheet.programs.resources import Resources

ENVIRONMENT, ENVIRONMENTS, UNITS = 'CartPole-v1', 16, (1024, 1024, 1024)


class Nowhere:
  """In the places of replay and recorder: takes everything and keeps nothing."""

  def insert(self, table: str, columns: dict[str, Any]) -> int:
    return len(columns['reward'])

  def record(self, role: str, figures: dict[str, float], index: int = 0) -> None:
    pass


class Publisher:
  """In the learner's place: a new version of the parameters for whoever asks."""

  def __init__(self, agent: Agent) -> None:
    state = jax.jit(agent.init)(jax.random.PRNGKey(0))
    self._params = jax.tree.map(np.array, agent.parameters(state))
    self._version = 0

  def parameters(self, known: int = -1) -> Parameters | None:
    self._version += 1
    return Parameters(self._version, self._params)


def declare(num_actors: int, served: bool, gpus: int) -> tuple[Program, Any]:
  """The program, and the handle of its counter."""
  make_environment = make_gymnasium(ENVIRONMENT)
  probe = make_environment(1, 0)
  agent = dqn(probe.spec(), DQNConfig(hidden_sizes=UNITS))
  probe.close()
  program = Program('inference')
  counter = program.add('counter', Counter)
  nowhere: Any = program.add('nowhere', Nowhere)
  learner: Any = program.add('learner', Publisher, agent)
  # Stand-ins have some of the methods that annotations ask for: edges go unchecked.
  make_actor, make_server = _unchecked(Actor), _unchecked(InferenceServer)
  server = None
  if served:
    cpus = os.cpu_count() or 1
    node = Node('inference', resources=Resources(cpus=cpus, gpus=gpus))
    size = num_actors * ENVIRONMENTS
    server = program.add(
      node, make_server, agent, learner, nowhere, max_batch_size=size
    )
  for index in range(num_actors):
    program.add(
      f'actor-{index}',
      make_actor,
      agent,
      make_environment,
      nowhere,
      None if served else learner,
      counter,
      nowhere,
      seed=index,
      num_environments=ENVIRONMENTS,
      inference=server,
    )
  return program, counter


def _unchecked(make: Any) -> Any:
  def made(*args: Any, **kwargs: Any) -> Any:
    return make(*args, **kwargs)

  return made


def steps_per_second(num_actors: int, served: bool, gpus: int, seconds: float) -> float:
  """Of all actors together, once each has begun."""
  program, handle = declare(num_actors, served, gpus)
  with start(program, Processes(echo=False)) as running:
    counter = running.client(handle)

    def count() -> int:
      return int(counter.counts().get('actor_steps', 0))

    # An actor's start takes some seconds, and disturbs the others.
    while count() < num_actors * ENVIRONMENTS * 100:
      running.wait(timeout=0.1)
    running.wait(timeout=2.0)
    before = count()
    running.wait(timeout=seconds)
    return (count() - before) / seconds


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--actors', default='1,2,4,8', help='how many, several with ,')
  parser.add_argument('--seconds', type=float, default=5.0)
  parser.add_argument('--rounds', type=int, default=3, help='medians over so many')
  parser.add_argument('--gpus', type=int, default=0, help="of the server's")
  options = parser.parse_args()
  found: dict[str, Any] = {}
  for num_actors in map(int, options.actors.split(',')):
    rounds = [
      [
        steps_per_second(num_actors, served, options.gpus, options.seconds)
        for served in (False, True)
      ]
      for _ in range(options.rounds)
    ]
    found[str(num_actors)] = {
      'actor_steps_per_s': round(statistics.median(own for own, _ in rounds)),
      'server_steps_per_s': round(statistics.median(served for _, served in rounds)),
      'ratio': round(statistics.median(served / own for own, served in rounds), 3),
    }
    print(f'{num_actors} actors: {found[str(num_actors)]}', file=sys.stderr)
  print(
    json.dumps(
      {
        'benchmark': 'inference',
        'rounds': options.rounds,
        'environments': ENVIRONMENTS,
        'units': UNITS,
        'gpus': options.gpus,
        'actors': found,
        'load_average': os.getloadavg()[0],
        'cpus': os.cpu_count(),
      }
    )
  )


if __name__ == '__main__':
  main()
