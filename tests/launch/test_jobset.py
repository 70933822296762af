"""What would be submitted to Kubernetes: golden files, schemas, and what is refused."""

from __future__ import annotations

import copy
import os
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet import Always, Node, OnFailure, Program, Resources
from callsheet.errors import UsageError
from callsheet.launch import start
from callsheet.launch.kubernetes.backend import Kubernetes
from callsheet.launch.kubernetes.checks import complaints
from callsheet.launch.kubernetes.groups import groups
from callsheet.programs.plan import Plan
from tests.launch import manifests
from tests.launch.services import Forever, Greeter, Tally

GOLDEN = Path(__file__).with_name('golden')
OPTIONS = Kubernetes(image='registry/callsheet:1')


def agent() -> Plan:
  """The shape of an agent's program: accelerators, restarts, processes shared."""
  program = Program('dqn')
  tally = program.add('counter', Tally)
  on_tpu = Resources(cpus=8, memory_gb=32, tpu='v5e', tpu_topology='2x4')
  program.add(Node('learner', resources=on_tpu), Forever, 'learner', '', tally)
  with program.group('actor', restart=OnFailure(max_restarts=10)):
    for index in range(3):
      program.add('actor', Forever, f'{index}', '', tally)
    on_gpu = Resources(cpus=2, gpus=1, environment={'LEVEL': '3'})
    program.add(Node('large', resources=on_gpu), Forever, 'large', '', tally)
  with program.group('pair', colocate=True):
    program.add('one', Greeter)
    program.add(Node('two', restart=Always()), Greeter)
  program.add(Node('evaluator', ends_program=True), Forever, 'evaluator', '', tally)
  return program.plan()


def spmd(hosts: int = 2, topology: str = '2x4') -> Plan:
  """A learner of several processes."""
  program = Program('slice')
  program.add('learner', Forever, 'learner', '')
  (node,) = program.plan().nodes
  resources = Resources(cpus=4, tpu='v5e', tpu_topology=topology, hosts=hosts)
  names = ['learner', *(f'learner.{rank}' for rank in range(1, hosts))]
  return Plan(
    'slice',
    tuple(replace(node, name=n, unit=n, resources=resources) for n in names),
  )


EVERYTHING = replace(
  OPTIONS,
  namespace='research',
  job='run-7',
  queue='shared',
  volume='runs-claim',
  service_account='trainer',
  user=None,
  image_pull_policy='Always',
  python_path=('/program',),
  restarts=2,
  ttl=None,
  port=7000,
)


@pytest.mark.parametrize(
  ('name', 'plan', 'options'),
  [
    ('agent', agent(), OPTIONS),
    ('spmd', spmd(), OPTIONS),
    ('everything', spmd(), EVERYTHING),
    ('launcher_elsewhere', spmd(), replace(OPTIONS, address='10.0.0.5')),
  ],
)
def test_golden(name, plan, options):
  text = options.dry_run(plan)
  # A pickle is not the same with every Python.
  text = re.sub(r'\.pkl: .*|\.json: \d.*', lambda m: m[0].partition(':')[0], text)
  file = GOLDEN / f'{name}.yaml'
  if os.environ.get('CALLSHEET_GOLDEN') == 'write':
    file.write_text(f'{text}\n')
  assert f'{text}\n' == file.read_text(), 'if meant so: CALLSHEET_GOLDEN=write pytest'
  jobset, secret = manifests.read(text)
  manifests.validate(jobset)
  manifests.validate_secret(secret)


def test_a_dry_run_holds_sizes_and_no_data():
  text = OPTIONS.dry_run(agent())
  assert re.search(r'^#   program.pkl: \d+ bytes, sha256 [0-9a-f]{12}$', text, re.M)
  assert 'data' not in manifests.read(text)[1]


def test_the_schema_is_strict():
  jobset, _ = manifests.read(OPTIONS.dry_run(agent()))
  jobset['spec']['sucessPolicy'] = {}
  with pytest.raises(jsonschema.ValidationError, match='sucessPolicy'):
    manifests.validate(jobset)


def test_the_schema_of_jobs_is_strict():
  jobset, _ = manifests.read(OPTIONS.dry_run(agent()))
  job = jobset['spec']['replicatedJobs'][-1]['template']['spec']
  job['template']['spec']['containers'][0]['imagePulPolicy'] = 'Always'
  with pytest.raises(kubernetes_validate.ValidationError, match='imagePulPolicy'):
    manifests.validate(jobset)


names = st.from_regex(r'[A-Za-z0-9_][A-Za-z0-9_.-]{0,70}', fullmatch=True)
policies = st.sampled_from([None, OnFailure(3), Always()])
amounts = st.sampled_from(
  [
    None,
    Resources(cpus=0.25),
    Resources(gpus=2, memory_gb=0.5),
    Resources(tpu='v4', tpu_topology='2x2x1'),
    Resources(environment={'A': 'b'}, node_selector={'zone': 'x'}),
  ]
)
members = st.lists(
  st.tuples(names, st.booleans(), st.booleans(), policies, amounts),
  min_size=1,
  max_size=8,
  unique_by=lambda member: member[0],
)


@settings(max_examples=40, deadline=None)
@given(program_name=names, nodes=members)
def test_every_plan_is_valid_and_names_are_injective(program_name, nodes):
  program = Program(program_name)
  for name, grouped, shared, policy, resources in nodes:
    if not grouped:
      program.add(Node(name, restart=policy, resources=resources), Greeter)
      continue
    with program.group(name, restart=policy, resources=resources, colocate=shared):
      for index in range(2):
        program.add(f'n{index}', Greeter)
  plan = program.plan()
  jobset, _ = manifests.read(OPTIONS.dry_run(plan))
  manifests.validate(jobset)
  job = jobset['metadata']['name']
  units, pods = [], set()
  for each in jobset['spec']['replicatedJobs'][1:]:
    (container,) = each['template']['spec']['template']['spec']['containers']
    listed = {v['name']: v.get('value') for v in container['env']}['CALLSHEET_UNITS']
    units += listed.split(',')
    pods |= {f'{job}-{each["name"]}-0-{i}' for i in range(len(listed.split(',')))}
  assert sorted(units) == sorted(plan.units())
  assert len(pods) == len(units)


def test_units_that_need_the_same_are_one_group():
  found = {group.name: group for group in groups(agent(), 'dqn')}
  assert list(found) == ['counter', 'learner', 'actor', 'actor-2', 'pair', 'evaluator']
  actors = found['actor']
  assert actors.units == ('actor/0', 'actor/1', 'actor/2')
  assert actors.restarts and actors.backoff == 3 * 11
  assert found['pair'].backoff == 2**31 - 1
  assert not found['learner'].restarts and found['learner'].backoff == 0


@pytest.mark.parametrize(
  ('change', 'complaint'),
  [
    (lambda s: s['replicatedJobs'].append(s['replicatedJobs'][1]), "are called 'count"),
    (lambda s: s['successPolicy'].update(targetReplicatedJobs=['x']), "targets 'x'"),
    (
      lambda s: s['failurePolicy'].update(
        rules=[{'name': 'r', 'action': 'FailJobSet', 'targetReplicatedJobs': ['y']}]
      ),
      "failurePolicy rule 'r' targets 'y'",
    ),
    (
      lambda s: s['replicatedJobs'][0].update(
        dependsOn=[{'name': 'learner', 'status': 'Ready'}]
      ),
      "depends on 'learner', which is not before it",
    ),
    (lambda s: s['replicatedJobs'][0].update(name='x' * 60), 'names of 74 characters'),
    (lambda s: s['replicatedJobs'][0].update(name='A'), 'a letter first'),
    (
      lambda s: s['replicatedJobs'][3]['template']['spec'].update(completions=9),
      'parallelism 3 and completions 9',
    ),
  ],
)
def test_what_only_the_webhook_knows(change, complaint):
  jobset, _ = manifests.read(OPTIONS.dry_run(agent()))
  jobset = copy.deepcopy(jobset)
  change(jobset['spec'])
  assert any(complaint in line for line in complaints(jobset))


def one(**resources: object) -> Plan:
  program = Program('one')
  program.add(Node('learner', resources=Resources(**resources)), Greeter)
  return program.plan()


@pytest.mark.parametrize(
  ('plan', 'options', 'words'),
  [
    (one(), Kubernetes(), "told an image: Kubernetes(image='registry/callsheet:"),
    (one(), replace(OPTIONS, job='x' * 31), 'has 31 characters; a JobSet takes at'),
    (one(), replace(OPTIONS, job='My_Job'), "job='my-job'"),
    (one(tpu='v9'), OPTIONS, "tpu='v9'; on Kubernetes there are v4, v5e, v5p, v6e"),
    (one(tpu='v4'), OPTIONS, "Resources(tpu='v4', tpu_topology='2x2x2')"),
    (one(tpu='v4', tpu_topology='2x2'), OPTIONS, 'has 2 dimensions, v4 has 3'),
    (one(tpu='v5e', tpu_topology='4x4'), OPTIONS, '16 chips and the node has hosts=1'),
    (one(tpu='v5e', tpu_topology='4x4'), OPTIONS, 'it takes hosts=4'),
    (spmd(hosts=3), OPTIONS, '8 chips and the node has hosts=3'),
    (one(node_selector={'zone': 'a b'}), OPTIONS, "zone='a b', which is no value"),
    (one(environment={'A B': ''}), OPTIONS, "'A B', which is no name of a variable"),
  ],
)
def test_refused_before_it_is_submitted(plan, options, words):
  with pytest.raises(UsageError) as caught:
    options.dry_run(plan)
  assert words in str(caught.value)


def test_a_process_of_a_slice_is_missing():
  plan = spmd()
  with pytest.raises(UsageError, match=r'hosts=2 and the plan has 1 processes'):
    OPTIONS.dry_run(replace(plan, nodes=plan.nodes[:1]))


def test_a_program_that_is_larger_than_a_secret():
  program = Program('large')
  program.add('one', Forever, 'x' * 2**20, '')
  with pytest.raises(UsageError, match=r'have 1,0\d\d,\d{3} bytes .* takes 1,048,576'):
    OPTIONS.dry_run(program.plan())


@pytest.mark.parametrize(
  ('command', 'words'),
  [
    (('no-such-kubectl',), "there is no 'no-such-kubectl' on this machine"),
    (('sh', '-c', 'echo dial: refused >&2; exit 1'), 'within 10 s: dial: refused'),
    (('true',), 'the Kubernetes cluster has no JobSets; install the JobSet controller'),
    (
      (
        *('sh', '-c'),
        '[ $0 = create ] && echo "quota exceeded" >&2 && exit 1; echo jobsets',
      ),
      "the cluster refuses JobSet 'one': quota exceeded",
    ),
  ],
)
def test_a_cluster_that_does_not_take_it(command, words):
  with pytest.raises(UsageError) as caught:
    replace(OPTIONS, kubectl=command).submit(one())
  assert words in str(caught.value)
  assert '\n' not in str(caught.value)


def test_launching_without_an_address_says_how():
  with pytest.raises(UsageError, match=r'--detach, or Kubernetes\(...\).submit'):
    start(one(), OPTIONS)
