"""Where a run's figures go beside its files: `--tensorboard --wandb=PROJECT`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from absl import flags

from callsheet.commands.machine import port_error
from callsheet.errors import UsageError
from callsheet.nodes.sink_prometheus import Prometheus
from callsheet.nodes.sink_tensorboard import TensorBoard
from callsheet.nodes.sink_wandb import WeightsAndBiases
from callsheet.nodes.sinks import SinkOptions

OWN = ('tensorboard', 'prometheus_port', 'prometheus_host', 'wandb')


def define(values: flags.FlagValues) -> None:
  """Defines the flags."""
  flags.DEFINE_bool(
    'tensorboard',
    False,
    "Whether TensorBoard's event files are written, into the run folder.",
    flag_values=values,
  )
  flags.DEFINE_integer(
    'prometheus_port',
    None,
    'Where Prometheus can read the newest figures.',
    1,
    65535,
    flag_values=values,
  )
  flags.DEFINE_string(
    'prometheus_host',
    '127.0.0.1',
    'The address that it reads them at; loopback alone by default.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'wandb',
    None,
    'The project of Weights & Biases that they go to.',
    flag_values=values,
  )


def read(
  values: flags.FlagValues, folder: str, config: Mapping[str, Any], here: bool
) -> tuple[SinkOptions, ...]:
  """The sinks that the command line asks for.

  Args:
    values: the parsed flags.
    folder: of the run, absolute.
    config: of the run, for who shows it.
    here: whether the recorder will run on this machine.

  Raises:
    UsageError: a package is missing, or the port is taken.
  """
  sinks: list[SinkOptions] = []
  if values.tensorboard:
    sinks.append(TensorBoard(os.path.join(folder, 'tensorboard')))
  if values.prometheus_port is not None:
    port, host = values.prometheus_port, values.prometheus_host
    sinks.append(Prometheus(port, host))
    if here and (error := port_error(port, host)):
      raise UsageError(
        f'--prometheus_port={port}: {host} can not be listened at there ({error}); '
        'name another port, or see who has it: ss -ltnp'
      )
  elif values['prometheus_host'].present:
    raise UsageError(
      f'--prometheus_host={values.prometheus_host} needs --prometheus_port=9100, or '
      'another'
    )
  if values.wandb is not None:
    name = os.path.basename(folder)
    sinks.append(WeightsAndBiases(values.wandb, folder, name, config))
  return tuple(sinks)
