"""A recorder, what it asks, and what it has written."""

from __future__ import annotations

import csv
import json

from callsheet.nodes.counter import Counter
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.replay import TableStatistics


def statistics(size=10, samples_per_insert=2.0, credit=5.0, state='open'):
  return TableStatistics(
    size,
    100,
    size,
    2 * size,
    samples_per_insert,
    credit,
    state,
    bytes=4000,
    inserts_per_second=20.0,
    samples_per_second=40.0,
    waiting_samplers=1,
    samplers_blocked_seconds=0.5,
    sample_age=3.5,
  )


class Tables:
  """In the replay's place: has statistics, unless an error is put in their place."""

  def __init__(self, **tables):
    self.tables, self.error, self.asked = tables or {'t': statistics()}, None, 0

  def statistics(self):
    self.asked += 1
    if self.error is not None:
      raise self.error
    return dict(self.tables)


def recorder(directory, counter=None, replay=None, period=1000.0):
  folder = None if directory is None else str(directory)
  return Recorder(folder, counter or Counter(), replay or Tables(), period)


def row_of(one):
  one.close()
  return one.latest()


def read(directory):
  """The rows of both files."""
  lines = (directory / 'metrics.jsonl').read_text().splitlines()
  with open(directory / 'metrics.csv', newline='') as table:
    return [json.loads(line) for line in lines], list(csv.DictReader(table))
