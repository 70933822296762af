"""In wandb's place: writes down what it is asked for, in its folder."""

from __future__ import annotations

import json
import os
from typing import Any


class Run:
  def __init__(self, path: str) -> None:
    self._path = path
    self.summary: dict[str, Any] = {}

  def note(self, what: str, **details: Any) -> None:
    with open(self._path, 'a') as file:
      file.write(json.dumps([what, details]) + '\n')

  def define_metric(self, name: str, step_metric: str | None = None) -> None:
    self.note('metric', name=name, over=step_metric)

  def log(self, row: dict[str, float]) -> None:
    self.note('log', **row)

  def finish(self, exit_code: int) -> None:
    self.note('finish', exit_code=exit_code, **self.summary)


def init(**given: Any) -> Run:
  if given['project'] == 'down':
    raise ConnectionError('no route to wandb\nand many more lines')
  run = Run(os.path.join(given['dir'], 'wandb.jsonl'))
  run.note('init', **given)
  return run
