"""DQN solves CartPole-v1 under every launch engine: make learn"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from callsheet.agents.dqn import dqn
from callsheet.launch import Backend, Ray, Slurm, launch
from callsheet.nodes.gymnasium_environments import make_gymnasium
from callsheet.programs.actor_learner import actor_learner
from tests.launch.conftest import (  # noqa: F401  pytest finds fixtures by their names.
  backend,
  kubernetes_cluster,
  on_slurm,
  ray_cluster,
  slurm_cluster,
)
from tests.launch.hosts import hosts
from tests.launch.raylets import raylets

TARGET = 475

pytestmark = [pytest.mark.learning, pytest.mark.timeout(600)]


def solve(chosen: Backend, folder: Path, seed: int = 0) -> None:
  """Trains until two batches of greedy episodes reach the target."""
  make_environment = make_gymnasium('CartPole-v1')
  probe = make_environment(1, 0)
  agent = dqn(probe.spec())
  probe.close()
  program = actor_learner(
    agent,
    make_environment,
    seed=seed,
    target_return=TARGET,
    max_actor_steps=500_000,
    run_directory=str(folder),
  )
  begun = time.monotonic()
  launch(program, chosen)
  last = json.loads((folder / 'metrics.jsonl').read_text().splitlines()[-1])
  seconds = time.monotonic() - begun
  print(f'\n{chosen.name}, seed {seed}: {seconds:.0f} s, {json.dumps(last)}')
  assert last['evaluator/return'] >= TARGET


def test_on_each_backend(backend: Backend, tmp_path: Path) -> None:  # noqa: F811
  solve(backend, tmp_path / 'run')


def test_on_three_nodes_of_slurm(on_slurm: object, tmp_path: Path) -> None:  # noqa: F811
  solve(Slurm(nodes=3, log_directory=str(tmp_path / 'logs')), tmp_path / 'run')


def test_on_two_hosts_of_ray(tmp_path: Path) -> None:
  with hosts(1) as made, raylets('--num-cpus=5', host=made.address) as cluster:
    cluster.join(made.names[0], made.addresses[0], '--num-cpus=5')
    # Neither host has room for all seven nodes.
    solve(Ray(cluster.address, log_directory=str(tmp_path / 'logs')), tmp_path / 'run')
