"""A run whose actors ask servers what to do."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.commands.conftest import Shell, end, wait_for
from tests.commands.test_run import ENDLESS, SMALL, pids, rows, steps

pytestmark = pytest.mark.timeout(180)

SERVED = ('run', 'dqn', '--name=mine', '--inference=server')


@pytest.mark.parametrize('num_servers', [1, 2])
@pytest.mark.parametrize('backend', ['processes', 'threads'])
def test_it_acts_and_learns(shell: Shell, backend: str, num_servers: int):
  code, out, err = shell.run(
    *SERVED,
    f'--num_inference_servers={num_servers}',
    f'--backend={backend}',
    '--max_actor_steps=4000',
    *SMALL,
  )
  assert (code, err) == (0, ''), out
  run = shell.place / 'runs' / 'mine'
  assert steps(run, 'actor_steps') >= 2000 and steps(run, 'learner_steps') > 0
  last = rows(run)[-1]
  # 16 environments an actor, and one or two actors a server.
  assert 16 <= last['inference/batch_size'] <= 32 // num_servers
  assert last['inference/wait'] >= 0 and last['inference/parameter_age'] >= 0
  assert last['actor/parameter_age'] >= 0
  flags = json.loads((run / 'config.json').read_text())['flags']
  assert flags['inference'] == 'server'
  assert flags['num_inference_servers'] == num_servers
  if backend == 'processes':
    logs = {log.stem for log in (run / 'logs').iterdir()}
    one = {'inference'}
    two = {'inference-0', 'inference-1'}
    assert logs >= (one if num_servers == 1 else two)


def test_actors_outlive_their_server(shell: Shell):
  process = shell.start(*SERVED, *ENDLESS)
  run = shell.place / 'runs' / 'mine'
  wait_for(lambda: steps(run, 'learner_steps') > 0)
  os.kill(pids(run, 'inference')[0], signal.SIGKILL)
  wait_for(lambda: len(pids(run, 'inference')) == 2)
  before = steps(run, 'actor_steps')
  wait_for(lambda: steps(run, 'actor_steps') > before + 500)
  assert [len(pids(run, f'actor-{index}')) for index in (0, 1)] == [1, 1]

  os.kill(pids(run, 'actor-0')[0], signal.SIGKILL)
  wait_for(lambda: len(pids(run, 'actor-0')) == 2)
  before = steps(run, 'actor_steps')
  wait_for(lambda: steps(run, 'actor_steps') > before + 500)
  process.send_signal(signal.SIGINT)
  code, out, err = end(process)
  assert (code, err) == (130, 'callsheet: interrupted\n'), out
  assert 'inference | its process was killed by SIGKILL; restart 1 in 1.0 s\n' in out
  assert 'did not stop' not in out and 'Traceback' not in out
  assert len(pids(run, 'inference')) == 2
