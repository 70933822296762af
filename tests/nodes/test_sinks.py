"""Where rows go beside the files: what arrives there, and that none harms the run."""

from __future__ import annotations

import importlib.machinery
import json
import math
import os
import pickle
import socket
import struct
import sys
import threading
import types
import urllib.error
import urllib.request
from dataclasses import dataclass, field

import pytest

from callsheet.errors import UsageError
from callsheet.nodes.counter import Counter
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.sink_prometheus import Prometheus
from callsheet.nodes.sink_tensorboard import TensorBoard
from callsheet.nodes.sink_wandb import WeightsAndBiases
from callsheet.nodes.sinks import Sinks
from tests.nodes import fake_wandb
from tests.nodes.small import eventually
from tests.nodes.test_recorder import Tables

pytestmark = pytest.mark.timeout(60)

ROW = {
  'seconds': 2.5,
  'actor_steps': 30,
  'learner_steps': 7,
  'actor_steps_per_second': 12.0,
  'replay_state': 'actors wait',
  'replay_credit': None,
  'learner/loss': 0.5,
}


@dataclass
class Kept:
  """Keeps what it gets; does `disturb` first."""

  name: str = 'kept'
  disturb: object = None
  where: str = ''
  got: list[object] = field(default_factory=list)

  def open(self):
    self._at('open')
    return self

  def append(self, row):
    self._at('append')
    self.got.append(row)

  def finish(self, outcome):
    self._at('finish')
    self.got.append(outcome)

  def _at(self, where):
    if where == self.where:
      self.disturb()


def fails():
  raise OSError(28, 'No space left on device')


def exits():
  sys.exit(3)


def test_rows_and_the_outcome_arrive_in_order():
  kept = Kept()
  sinks = Sinks([kept])
  for index in range(100):
    sinks.append({'index': index})
  sinks.finish('finished')
  assert kept.got == [*({'index': index} for index in range(100)), 'finished']


@pytest.mark.parametrize('where', ['open', 'append', 'finish'])
@pytest.mark.parametrize(
  ('disturb', 'said'),
  [(fails, 'OSError: [Errno 28] No space left on device'), (exits, 'SystemExit: 3')],
)
def test_one_that_fails_is_dropped_with_a_line(caplog, where, disturb, said):
  bad, good = Kept('bad', disturb, where), Kept()
  sinks = Sinks([bad, good])
  for index in range(3):
    sinks.append({'index': index})
  if where != 'finish':
    eventually(lambda: caplog.records)
  sinks.append({'index': 3})
  sinks.finish('failed')
  eventually(lambda: caplog.records)
  assert [record.getMessage() for record in caplog.records] == [
    f'bad gets no more rows ({said}); the run goes on, and so do its files'
  ]
  assert good.got[-2:] == [{'index': 3}, 'failed']


def test_one_that_hangs_holds_nobody_up(caplog):
  released = threading.Event()
  slow, good = Kept('slow', released.wait, 'append'), Kept()
  sinks = Sinks([slow, good], patience=0.2)
  sinks.append(ROW)
  sinks.finish('finished')
  assert good.got == [ROW, 'finished']
  assert 'slow gets no more rows (it has not finished in time)' in caplog.text
  released.set()


def test_one_that_is_far_behind_is_dropped(caplog):
  released = threading.Event()
  sinks = Sinks([Kept('slow', released.wait, 'open')])
  for _ in range(1000):
    sinks.append(ROW)
  sinks.finish('finished')
  released.set()
  assert [record.getMessage() for record in caplog.records] == [
    'slow gets no more rows (it is 600 rows behind); the run goes on, and so do its '
    'files'
  ]


# The recorder.


@pytest.mark.parametrize('told', ['finished', 'failed', 'interrupted', None])
def test_the_recorder_passes_on_rows_and_the_outcome(told):
  kept = Kept()
  recorder = Recorder(None, Counter(), Tables(), sinks=[kept])
  recorder.record('learner', {'loss': math.nan})
  if told is not None:
    recorder.conclude(told)
  recorder.close()
  row, outcome = kept.got
  assert row == recorder.latest() and row['learner/loss'] is None
  # Who isn't told doesn't claim a clean end.
  assert outcome == told or (told is None and outcome == 'interrupted')


def test_sinks_are_finished_though_the_last_row_can_not_be_made():
  kept, replay = Kept(), Tables()
  recorder = Recorder(None, Counter(), replay, sinks=[kept])
  replay.error = ValueError('broken')
  recorder.conclude('failed')
  with pytest.raises(ValueError, match='broken'):
    recorder.close()
  assert kept.got == ['failed']


# TensorBoard.


def events(directory):
  """All events of all files, by the format of their records alone."""
  from tensorboardX.proto.event_pb2 import Event

  for name in sorted(os.listdir(directory)):
    with open(directory / name, 'rb') as file:
      while head := file.read(12):
        (length,) = struct.unpack('<Q', head[:8])
        yield Event.FromString(file.read(length))
        file.read(4)


def test_tensorboard(tmp_path):
  options = pickle.loads(pickle.dumps(TensorBoard(str(tmp_path / 'deep' / 'board'))))
  for outcome in ('interrupted', 'finished'):  # The recorder is restarted.
    sink = options.open()
    sink.append(ROW)
    sink.finish(outcome)
  found = [
    event for event in events(tmp_path / 'deep' / 'board') if event.summary.value
  ]
  scalars = {
    (value.tag, event.step): value.simple_value
    for event in found
    for value in event.summary.value
    if value.HasField('simple_value')
  }
  assert scalars['learner/loss', 30] == 0.5
  assert scalars['actor_steps_per_second', 30] == 12
  assert {tag for tag, _ in scalars} == {
    name for name, value in ROW.items() if isinstance(value, float | int)
  }
  texts = [
    value.tensor.string_val[0].decode()
    for event in found
    for value in event.summary.value
    if value.tag.startswith('outcome')
  ]
  assert sorted(texts) == ['finished', 'interrupted']


def test_where_nobody_acts_curves_are_over_learner_steps(tmp_path):
  sink = TensorBoard(str(tmp_path)).open()
  sink.append({'actor_steps': 0, 'learner_steps': 9, 'learner/loss': 1.0})
  sink.finish('finished')
  assert {event.step for event in events(tmp_path) if event.summary.value} == {9}


def test_tensorboard_that_can_not_write_is_heard_of(tmp_path, caplog):
  (tmp_path / 'file').write_text('')
  sinks = Sinks([TensorBoard(str(tmp_path / 'file'))])
  sinks.append(ROW)
  sinks.finish('finished')
  assert 'TensorBoard gets no more rows (FileExistsError: ' in caplog.text


# Prometheus.


def free_port():
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


def scrape(port):
  with urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics', timeout=10) as page:
    lines = page.read().decode().splitlines()
  return dict(line.rsplit(' ', 1) for line in lines if not line.startswith('#'))


def test_prometheus():
  port = free_port()
  sink = pickle.loads(pickle.dumps(Prometheus(port))).open()
  assert scrape(port)['callsheet_run_state{state="running"}'] == '1.0'
  sink.append(ROW)
  page = scrape(port)
  assert page['callsheet_actor_steps_total'] == '30.0'
  assert page['callsheet_learner_loss'] == '0.5'
  assert page['callsheet_replay_state{state="actors wait"}'] == '1.0'
  assert not any('credit' in name for name in page)
  sink.append({**ROW, 'actor_steps': 31})
  assert scrape(port)['callsheet_actor_steps_total'] == '31.0'
  listening = sink.server.server_address
  sink.finish('finished')
  assert listening == ('127.0.0.1', port)
  state = next(each for each in sink.collect() if each.name == 'callsheet_run_state')
  assert [sample.labels for sample in state.samples if sample.value] == [
    {'state': 'finished'}
  ]
  with pytest.raises(urllib.error.URLError):
    scrape(port)
  Prometheus(port).open().finish('finished')  # The port is free again.


def test_prometheus_where_the_port_is_taken(caplog):
  with socket.create_server(('127.0.0.1', 0)) as server:
    sinks = Sinks([Prometheus(server.getsockname()[1])])
    sinks.append(ROW)
    sinks.finish('finished')
  assert 'Prometheus gets no more rows (OSError: ' in caplog.text


# Weights & Biases.


@pytest.fixture
def wandb(monkeypatch):
  module = types.ModuleType('wandb')
  module.__spec__ = importlib.machinery.ModuleSpec('wandb', None)
  module.init = fake_wandb.init
  monkeypatch.setitem(sys.modules, 'wandb', module)


def noted(directory):
  lines = (directory / 'wandb.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
  ('outcome', 'code'), [('finished', 0), ('failed', 1), ('interrupted', 1)]
)
def test_wandb_is_told_how_it_ended(wandb, tmp_path, outcome, code):
  options = WeightsAndBiases('p', str(tmp_path), 'mine', {'seed': 3})
  sink = pickle.loads(pickle.dumps(options)).open()
  sink.append(ROW)
  sink.finish(outcome)
  calls = noted(tmp_path)
  given = calls[0][1]
  assert (given['project'], given['name'], given['config'], given['resume']) == (
    'p',
    'mine',
    {'seed': 3},
    'allow',
  )
  assert ['metric', {'name': '*', 'over': 'actor_steps'}] in calls
  expected = {name: v for name, v in ROW.items() if isinstance(v, int | float)}
  assert ['log', expected] in calls
  assert calls[-1] == ['finish', {'exit_code': code, 'outcome': outcome}]


def test_a_restarted_recorder_goes_on_with_the_same_run_there(wandb, tmp_path):
  for _ in range(2):
    WeightsAndBiases('p', str(tmp_path), 'mine').open()
  first, second = (each['id'] for what, each in noted(tmp_path) if what == 'init')
  assert first == second and len(first) >= 8
  other = tmp_path / 'other'
  WeightsAndBiases('p', str(other), 'mine').open()
  assert noted(other)[0][1]['id'] != first


def test_wandb_that_is_down_costs_a_line(wandb, tmp_path, caplog):
  sinks = Sinks([WeightsAndBiases('down', str(tmp_path), 'mine')])
  sinks.append(ROW)
  sinks.finish('finished')
  assert [record.getMessage() for record in caplog.records] == [
    'Weights & Biases gets no more rows (ConnectionError: no route to wandb); the run '
    'goes on, and so do its files'
  ]


@pytest.mark.parametrize(
  ('declare', 'module', 'command'),
  [
    (lambda: TensorBoard('x'), 'tensorboardX', 'callsheet[tensorboard]'),
    (lambda: Prometheus(9100), 'prometheus_client', 'callsheet[prometheus]'),
    (lambda: WeightsAndBiases('p', 'x', 'n'), 'wandb', 'callsheet[wandb]'),
  ],
)
def test_what_is_missing_is_said_at_declaration(monkeypatch, declare, module, command):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(UsageError) as caught:
    declare()
  assert str(caught.value).endswith(f' needs {module}: pip install "{command}"')
