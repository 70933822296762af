"""The newest row as a page that Prometheus reads, by prometheus_client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from callsheet.nodes.sinks import Figures, Sink, numbers, require
from callsheet.outcomes import Outcome

# What only grows, for rate() to be right.
_COUNTERS = ('actor_steps', 'episodes', 'learner_steps')
_STATES = ('running', *get_args(Outcome))


@dataclass(frozen=True)
class Prometheus:
  """Serves http://HOST:PORT/metrics from the first row on until the run ends.

  Figures are gauges (`learner/loss` is `callsheet_learner_loss`), counts counters
  (`callsheet_actor_steps_total`); `callsheet_run_state{state="running"}` is 1 while it
  runs, and another state's at its end, if somebody looks then.

  Attributes:
    port: to listen at.
    host: whose address; loopback unless told otherwise, for everybody who reaches it
      can read it.

  Raises:
    UsageError: prometheus_client isn't installed.
  """

  port: int
  host: str = '127.0.0.1'
  name: str = 'Prometheus'

  def __post_init__(self) -> None:
    require('prometheus_client', 'prometheus', self.name)

  def open(self) -> Sink:
    """See `SinkOptions.open`."""
    from prometheus_client import CollectorRegistry, start_http_server

    page = _Page()
    registry = CollectorRegistry()
    registry.register(page)
    page.server, page.thread = start_http_server(self.port, self.host, registry)
    return page


class _Page:
  """Collects when it is asked; safe to ask from the server's threads."""

  server: Any
  thread: Any

  def __init__(self) -> None:
    self._row: Figures = {}
    self._state = 'running'

  def append(self, row: Figures) -> None:
    self._row = row

  def finish(self, outcome: Outcome) -> None:
    self._state = outcome
    self.server.shutdown()
    self.server.server_close()
    self.thread.join()

  def collect(self) -> Iterator[Any]:
    """What prometheus_client asks for at each look."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    row = self._row
    for name, value in numbers(row).items():
      family = CounterMetricFamily if name in _COUNTERS else GaugeMetricFamily
      yield family(f'callsheet_{_safe(name)}', name, value=value)
    yield _chosen('callsheet_run_state', 'how it stands', _STATES, self._state)
    if isinstance(held := row.get('replay_state'), str):
      yield _chosen('callsheet_replay_state', 'its limiter', (held,), held)


def _chosen(name: str, what: str, states: tuple[str, ...], chosen: str) -> Any:
  from prometheus_client.core import GaugeMetricFamily

  family = GaugeMetricFamily(name, what, labels=['state'])
  for state in states:
    family.add_metric([state], float(state == chosen))
  return family


def _safe(name: str) -> str:
  return re.sub(r'[^a-zA-Z0-9_]', '_', name)
