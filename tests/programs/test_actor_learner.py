"""The actor-learner program: its nodes, who calls whom, and what each is given."""

from __future__ import annotations

import os
import subprocess
import sys

import cloudpickle
import pytest

from callsheet.agents.dqn import DQNConfig, dqn
from callsheet.errors import ArgumentError, EdgeError, UsageError
from callsheet.nodes.actor import Actor
from callsheet.nodes.counter import Counter
from callsheet.nodes.evaluator import Evaluator
from callsheet.nodes.learner import Learner
from callsheet.nodes.recorder import Recorder
from callsheet.programs import Never, OnFailure, Resources
from callsheet.programs.actor_learner import DEFAULT_ENGINE, ENGINES, actor_learner
from tests.programs.declared import (
  AGENT,
  SPEC,
  Engine,
  arguments,
  declare,
  make_environment,
)

# The graph.


def test_nodes_services_and_edges():
  plan = declare(num_actors=3)
  actors = {
    f'actor/{i}': ('Actor', {'replay', 'learner', 'counter', 'recorder'})
    for i in range(3)
  }
  assert {node.name: (node.service, set(node.callees)) for node in plan.nodes} == {
    'counter': ('Counter', set()),
    'replay': ('Engine', set()),
    'recorder': ('Recorder', {'counter', 'replay'}),
    'learner': ('Learner', {'replay', 'counter', 'recorder'}),
    **actors,
    'evaluator': ('Evaluator', {'learner', 'counter', 'recorder'}),
  }
  assert plan.name == 'dqn'


@pytest.mark.parametrize('num_actors', [1, 5])
def test_so_many_actors(num_actors):
  names = [node.name for node in declare(num_actors=num_actors).nodes]
  assert [name for name in names if name.startswith('actor')] == [
    f'actor/{i}' for i in range(num_actors)
  ]


def test_callers_stop_before_those_they_call():
  assert [set(level) for level in declare(num_actors=2).stop_order()] == [
    {'actor/0', 'actor/1', 'evaluator'},
    {'learner'},
    {'recorder'},
    {'counter', 'replay'},
  ]


def test_the_evaluator_ends_it_and_restarts_as_actors_do():
  plan = declare()
  assert [node.name for node in plan.nodes if node.ends_program] == ['evaluator']
  for node in plan.nodes:
    restarts = node.name.startswith(('actor', 'evaluator'))
    assert node.restart == (OnFailure(max_restarts=10) if restarts else Never())


# Inference servers.


@pytest.mark.parametrize(
  ('num_servers', 'names'),
  [(1, ['inference']), (2, ['inference/0', 'inference/1'])],
)
def test_servers_share_the_actors_in_turn(num_servers, names):
  plan = declare(
    inference='server',
    num_inference_servers=num_servers,
    num_actors=5,
    num_environments=4,
    inference_resources=Resources(gpus=1),
  )
  servers = [node for node in plan.nodes if node.service == 'InferenceServer']
  assert [node.name for node in servers] == names
  for node in servers:
    assert set(node.callees) == {'learner', 'recorder'}
    assert node.restart == OnFailure(max_restarts=10)
    assert node.resources == Resources(gpus=1)
  asked = []
  for index in range(5):
    actor = plan.node(f'actor/{index}')
    asked.append(names[index % num_servers])
    assert set(actor.callees) == {'replay', 'counter', 'recorder', asked[-1]}
    assert arguments(actor)['learner'] is None
  # Room for all that ask there: then the last to ask waits for nobody.
  assert [node.kwargs['max_batch_size'] for node in servers] == [
    4 * asked.count(name) for name in names
  ]
  order = [set(level) for level in plan.stop_order()]
  assert order[:3] == [
    {'evaluator', *(f'actor/{index}' for index in range(5))},
    set(names),
    {'learner'},
  ]


@pytest.mark.parametrize('options', [{}, {'inference': 'actor'}])
def test_actors_act_by_themselves_where_nothing_else_is_said(options):
  plan = declare(**options)
  assert not [node for node in plan.nodes if node.service == 'InferenceServer']
  assert 'learner' in plan.node('actor/0').callees
  assert arguments(plan.node('actor/0'))['inference'] is None


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (
      {'inference': 'sevrer'},
      "no inference 'sevrer'; did you mean 'server'. there are actor, server",
    ),
    ({'inference': 'moon'}, "no inference 'moon'; there are actor, server"),
    (
      {'num_inference_servers': 2},
      'num_inference_servers is 2, but each actor .* leave it out, or take',
    ),
    (
      {'inference': 'server', 'num_inference_servers': 0},
      'num_inference_servers is 0, expected 1 to num_actors, 2',
    ),
    (
      {'inference': 'server', 'num_inference_servers': 3},
      'num_inference_servers is 3, expected 1 to num_actors, 2',
    ),
  ],
)
def test_servers_that_can_not_be(options, message):
  with pytest.raises(UsageError, match=message):
    declare(**options)


# Relays.


def test_relays_stand_between_the_learner_and_those_who_act():
  plan = declare(num_relays=2, num_actors=3)
  for name in ('relay/0', 'relay/1'):
    assert plan.node(name).callees == ('learner',)
    assert plan.node(name).restart == OnFailure(max_restarts=10)
  for index in range(3):
    callees = set(plan.node(f'actor/{index}').callees)
    assert callees == {'replay', f'relay/{index % 2}', 'counter', 'recorder'}
  assert 'learner' in plan.node('evaluator').callees


def test_inference_servers_ask_relays():
  plan = declare(num_relays=1, inference='server', num_inference_servers=2)
  for index in range(2):
    assert set(plan.node(f'inference/{index}').callees) == {'relay/0', 'recorder'}


@pytest.mark.parametrize('num_relays', [-1, 3])
def test_relays_that_can_not_be(num_relays):
  with pytest.raises(UsageError, match=f'num_relays is {num_relays}, expected 0 to'):
    declare(num_relays=num_relays)


def seeds(**options):
  return [
    node.kwargs['seed'] for node in declare(**options).nodes if 'seed' in node.kwargs
  ]


def test_no_two_nodes_of_any_run_share_a_seed():
  runs = [seeds(seed=seed, num_actors=4) for seed in (0, 1, 100)]
  assert [len(run) for run in runs] == [6] * 3
  assert len(set().union(*runs)) == 18
  assert seeds(seed=1, num_actors=4) == runs[1]
  served = seeds(num_actors=4, inference='server', num_inference_servers=3)
  assert len(set(served)) == 9


# What the nodes are given.


def test_options_reach_their_nodes():
  plan = declare(
    num_environments=5,
    target_return=475.0,
    max_actor_steps=1000,
    num_episodes=7,
    updates_per_dispatch=3,
    replay_options={'port': 4321},
  )
  assert arguments(plan.node('actor/1'))['num_environments'] == 5
  evaluator = arguments(plan.node('evaluator'))
  assert evaluator['target_return'] == 475.0
  assert evaluator['max_actor_steps'] == 1000
  assert evaluator['num_episodes'] == 7
  assert arguments(plan.node('learner'))['updates_per_dispatch'] == 3
  assert arguments(plan.node('replay')) == {'tables': AGENT.tables, 'port': 4321}


def test_files_go_to_the_run_folder_and_nowhere_without_one():
  plan = declare(run_directory='runs/x')
  assert arguments(plan.node('recorder'))['directory'] == 'runs/x'
  learner, evaluator = (
    arguments(plan.node('learner')),
    arguments(plan.node('evaluator')),
  )
  assert learner['checkpoint_directory'] == os.path.join('runs/x', 'checkpoint/learner')
  assert evaluator['policy_directory'] == os.path.join('runs/x', 'checkpoint/policy')
  plan = declare()
  assert arguments(plan.node('recorder'))['directory'] is None
  assert arguments(plan.node('learner'))['checkpoint_directory'] is None
  assert arguments(plan.node('evaluator'))['policy_directory'] is None


def test_all_nodes_can_be_built_from_the_plan():
  services = {}

  def resolve(name):
    return services.setdefault(name, object())

  plan = declare()
  for name, kind in {
    'counter': Counter,
    'recorder': Recorder,
    'replay': Engine,
  }.items():
    assert isinstance(plan.node(name).construct(resolve), kind)
  for name, kind in {
    'actor/0': Actor,
    'evaluator': Evaluator,
    'learner': Learner,
  }.items():
    assert plan.node(name).make is kind


def test_the_plan_travels_to_another_process():
  plan = cloudpickle.loads(cloudpickle.dumps(declare()))
  assert plan.stop_order() == declare().stop_order()
  assert arguments(plan.node('learner'))['agent'].name == 'dqn'
  assert plan.node('actor/0').callees == declare().node('actor/0').callees


@pytest.mark.parametrize('engine', ENGINES)
def test_each_engine_of_the_replay_may_be_chosen(engine):
  node = declare(make_replay=ENGINES[engine]).node('replay')
  assert node.make is ENGINES[engine]
  assert arguments(node) == {'tables': AGENT.tables}


def test_an_engine_is_taken_where_none_is_named():
  node = actor_learner(AGENT, make_environment).plan().node('replay')
  assert node.make is ENGINES[DEFAULT_ENGINE]


# What is refused.


def test_a_program_needs_an_actor():
  with pytest.raises(UsageError, match='num_actors is 0, expected at least 1'):
    declare(num_actors=0)


def test_an_option_that_the_engine_lacks_is_refused():
  with pytest.raises(ArgumentError, match='tiles'):
    declare(replay_options={'tiles': 3})


def test_an_engine_that_is_no_replay_is_refused():
  class NoReplay(Counter):
    def __init__(self, tables):
      super().__init__()

  with pytest.raises(EdgeError, match="NoReplay has no method 'sample'"):
    declare(make_replay=NoReplay)


# What it imports.


def imported(statement, *modules):
  """Which of the modules a fresh interpreter has after the statement."""
  code = f'{statement}; import sys; print([m for m in {modules!r} if m in sys.modules])'
  return subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True, timeout=60
  ).stdout.strip()


def test_declaring_imports_neither_jax_nor_tensorflow():
  heavy = ('jax', 'tensorflow', 'reverb', 'orbax', 'numpy', 'callsheet.launch')
  assert imported('import callsheet.programs', *heavy) == '[]'


def test_the_program_imports_no_tensorflow():
  heavy = ('tensorflow', 'reverb', 'orbax', 'launchpad', 'callsheet.launch')
  statement = 'import callsheet.programs.actor_learner, callsheet.agents.dqn'
  assert imported(statement, *heavy) == '[]'


def test_an_engine_that_can_check_is_asked_before_anything_starts():
  class Careful(Engine):
    @classmethod
    def check(cls, tables, *, order):
      raise UsageError(f'{len(tables)} tables in {order} order do not fit')

  with pytest.raises(UsageError, match='1 tables in no order do not fit'):
    declare(make_replay=Careful, replay_options={'order': 'no'})
  with pytest.raises(ArgumentError, match='ordr'):
    declare(make_replay=Careful, replay_options={'ordr': 'no'})


def test_an_engine_is_not_asked_about_this_machine_for_another():
  class Full(ENGINES['native']):
    @classmethod
    def check(cls, tables, **options):
      raise UsageError('no room here')

  with pytest.raises(UsageError, match='no room here'):
    declare(make_replay=Full)
  assert declare(make_replay=Full, check_here=False).node('replay')


def test_tables_that_can_not_fit_are_refused():
  huge = dqn(SPEC, DQNConfig(max_replay_size=9_000_000_000_000))
  with pytest.raises(UsageError, match=r"'transitions' would take .* a max_size of"):
    actor_learner(huge, make_environment, make_replay=ENGINES['native'])


# A learner over several processes.


def test_a_learner_of_several_processes():
  plan = declare(num_learner_hosts=2)
  learners = [node for node in plan.nodes if node.make is Learner]
  assert [node.name for node in learners] == ['learner', 'learner.1']
  assert all(node.resources.hosts == 2 for node in learners)
  assert all('learner.1' not in node.callees for node in plan.nodes)


@pytest.mark.parametrize(
  'hosts, message',
  [
    (0, 'num_learner_hosts is 0, expected at least 1'),
    (
      3,
      "num_learner_hosts is 3, by which the batches of 64 that 'dqn' samples can not "
      'be divided; take a batch_size that can',
    ),
  ],
)
def test_processes_that_can_not_share_a_batch(hosts, message):
  with pytest.raises(UsageError) as caught:
    declare(num_learner_hosts=hosts)
  assert str(caught.value) == message
