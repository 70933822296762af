"""What an agent's declaration refuses, whoever launches it."""

from __future__ import annotations

import dataclasses

import pytest

from callsheet.agents.base import NStep, Sampling, Table
from callsheet.errors import UsageError
from tests.nodes import small


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'writes': NStep('s', 1, 0.9)}, r"'mean' writes to the table 's'.*\['t'\]"),
    (
      {'samples': Sampling('s', 4)},
      r"'mean' samples the table 's', but declares \['t'",
    ),
    ({'samples': Sampling('t', 0)}, "batches of 0 from the table 't', expected 1 to"),
    ({'samples': Sampling('t', 1001)}, 'batches of 1001 .* its max_size, 1000'),
    ({'tables': ()}, r'declares \[\]'),
  ],
)
def test_tables_that_do_not_fit_are_refused(changes, message):
  with pytest.raises(UsageError, match=message):
    dataclasses.replace(small.agent(), **changes)


def test_a_batch_may_be_larger_than_a_queue():
  queue = Table.queue('t', small.TABLE.columns, 2)
  agent = dataclasses.replace(small.agent(), tables=(queue,))
  assert agent.samples.batch_size == 4


def test_a_batch_may_be_all_that_the_table_holds():
  agent = dataclasses.replace(small.agent(), samples=Sampling('t', 1000))
  assert agent.samples.batch_size == 1000
