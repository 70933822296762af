"""What the learner compiles while the replay fills."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from callsheet.nodes.counter import Counter
from callsheet.nodes.learner import Learner
from tests.nodes.small import Batches, Loop, Records, agent, eventually

pytestmark = pytest.mark.timeout(60)


def test_the_program_is_traced_before_the_first_sample_and_not_again():
  one, traced = agent(), []

  def update(state, batch):
    traced.append(batch.data['reward'].shape)
    return one.update(state, batch)

  class Filling(Batches):
    """Answers once something was traced, with every column of the table."""

    def sample(self, table, batch_size, num_batches=1):
      eventually(lambda: traced)
      sample = super().sample(table, batch_size, num_batches)
      shape = (num_batches, batch_size)
      missing = {
        name: np.zeros((*shape, *column.shape), column.dtype)
        for name, column in one.tables[0].columns.items()
        if name not in sample.batch.data
      }
      data = {**sample.batch.data, **missing}
      return sample._replace(batch=sample.batch._replace(data=data))

  watched = dataclasses.replace(one, update=update)
  learner = Learner(
    watched, Filling(), Counter(), Records(), updates_per_dispatch=4, max_steps=12
  )
  with Loop(learner) as loop:
    loop.ended.result(30)
  assert traced == [(4,)]
