"""Rows as a run at Weights & Biases, by wandb."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from callsheet.nodes.sinks import Figures, Sink, numbers, require
from callsheet.outcomes import Outcome

ID_FILE = 'wandb-id'


@dataclass(frozen=True)
class WeightsAndBiases:
  """One run there for one run folder, however often the recorder begins anew.

  It is marked as finished if the run came to its end, as failed if a node failed or the
  run was stopped before; one that nobody could end is what wandb makes of it: crashed.
  Who it belongs to, and whether it is sent at once, wandb's own settings say
  (`wandb login`, WANDB_ENTITY, WANDB_MODE=offline).

  Attributes:
    project: whose run.
    directory: the run's folder: gets wandb's files, and the run's number there.
    run_name: for people.
    config: what the run was asked for, as JSON has it.

  Raises:
    UsageError: wandb isn't installed.
  """

  project: str
  directory: str
  run_name: str
  config: Mapping[str, Any] = field(default_factory=dict)
  name: str = 'Weights & Biases'

  def __post_init__(self) -> None:
    require('wandb', 'wandb', self.name)

  def open(self) -> Sink:
    """See `SinkOptions.open`."""
    import wandb

    os.makedirs(self.directory, exist_ok=True)
    run = wandb.init(
      project=self.project,
      name=self.run_name,
      config=dict(self.config),
      dir=self.directory,
      id=_id(os.path.join(self.directory, ID_FILE)),
      resume='allow',
    )
    # Curves over environment steps; its own steps are rows.
    for name, over in (('seconds', None), ('actor_steps', None), ('*', 'actor_steps')):
      run.define_metric(name, step_metric=over)
    return _Run(run)


class _Run:
  def __init__(self, run: Any) -> None:
    self._run = run

  def append(self, row: Figures) -> None:
    self._run.log(numbers(row))

  def finish(self, outcome: Outcome) -> None:
    self._run.summary['outcome'] = outcome
    self._run.finish(exit_code=0 if outcome == 'finished' else 1)


def _id(path: str) -> str:
  """The run's number at wandb, which stays the same from one opening to the next."""
  with contextlib.suppress(FileNotFoundError), open(path) as file:
    if known := file.read().strip():
      return known
  made = secrets.token_hex(8)
  with open(path, 'w') as file:
    file.write(made + '\n')
  return made
