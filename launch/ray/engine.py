"""Workers kept by Ray's actors, each in its unit's bundle of one placement group."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from callsheet.errors import UsageError
from callsheet.launch.ray import keeper
from callsheet.launch.ray.bundles import Bundle, amounts, total
from callsheet.launch.ray.cluster import Cluster
from callsheet.launch.remote.commands import how_it_went, worker_command
from callsheet.launch.remote.logs import Logs
from callsheet.launch.remote.ticket import Ticket


@dataclass
class _Kept:
  """An actor; `free` for a next life of its unit, `started` if a worker runs there."""

  actor: Any
  started: bool = False
  free: bool = False
  where: str = ''


def actor_options(bundle: Bundle) -> dict[str, Any]:
  """What the actor of a unit asks of Ray: all of its bundle."""
  others = dict(bundle.resources)
  options: dict[str, Any] = {'num_cpus': others.pop('CPU'), 'max_restarts': 0}
  for option, name in (('num_gpus', 'GPU'), ('memory', 'memory')):
    if name in others:
      options[option] = others.pop(name)
  if others:
    options['resources'] = others
  return {**options, 'max_concurrency': 2}  # It may be told to kill while it waits.


_TRIES, _PAUSE = 5, 1.0  # seconds


class RayEngine:
  """See `Engine`.

  Args:
    name: the program's.
    bundles: what the units ask for.
    strategy: of the placement group.
    limit: seconds that Ray may take to find room for all, and for one that restarts.
    python: the workers' interpreter; None for that of Ray's own processes.
    logs: get what the workers print.
    cluster: where; closed with this.

  Raises:
    UsageError: there was no room in time.
  """

  def __init__(
    self,
    name: str,
    bundles: tuple[Bundle, ...],
    strategy: str,
    limit: float,
    python: str | None,
    logs: Logs,
    cluster: Cluster,
  ) -> None:
    import ray
    from ray.util.placement_group import (
      placement_group,
      placement_group_table,
      remove_placement_group,
    )

    self._name, self._limit, self._python = name, limit, python or ''
    self._logs, self._cluster = logs, cluster
    self._bundles: Mapping[str, tuple[int, Bundle]] = {
      bundle.unit: (index, bundle) for index, bundle in enumerate(bundles)
    }
    self._kept: dict[str, _Kept] = {}
    self._threads: list[threading.Thread] = []
    # By value: Ray's processes may not find callsheet.
    ray.cloudpickle.register_pickle_by_value(keeper)
    try:
      self._keeper: Any = ray.remote(keeper.Keeper)
    finally:
      ray.cloudpickle.unregister_pickle_by_value(keeper)
    labels = [dict(bundle.labels) for bundle in bundles]
    selected = {'bundle_label_selector': labels} if any(labels) else {}
    self._group = placement_group(
      [dict(bundle.resources) for bundle in bundles], strategy=strategy, **selected
    )
    if not self._group.wait(limit):
      asked = total([bundle.resources for bundle in bundles])
      free = _free(asked)
      remove_placement_group(self._group)
      raise UsageError(
        f'Ray has found no room for the program within {limit:g} s: it asks for '
        f'{amounts(asked)} ({strategy}), free are {free}; wait until others have '
        'ended, or declare less'
      )
    if astray := _astray(placement_group_table(self._group), bundles):
      remove_placement_group(self._group)
      raise UsageError(
        f'Ray {ray.__version__} does not heed the labels that {astray!r} asks for; '
        "name a custom resource of the host instead: node_selector={'resource': 'a'}"
      )

  def start(self, unit: str, ticket: Ticket, ended: Callable[[str], None]) -> None:
    """See `Engine.start`."""
    kept = self._kept.get(unit)
    if kept is None or not kept.free:
      if kept is not None:  # Its host may be cut off: it can't be waited for.
        _kill(kept.actor)
      kept = self._kept[unit] = _Kept(self._actor(unit, ticket))
    kept.free = kept.started = False
    thread = threading.Thread(
      target=self._follow, args=(unit, kept, ticket, ended), daemon=True, name='ray'
    )
    self._threads.append(thread)
    thread.start()

  def kill(self, unit: str) -> None:
    """Has the worker killed, or its actor if that does not run yet."""
    kept = self._kept.get(unit)
    if kept is None or kept.free:
      return
    if kept.started:
      kept.actor.kill.remote()
    else:
      _kill(kept.actor)

  def note(self, unit: str, text: str) -> None:
    """See `Engine.note`."""
    self._logs.note(unit, text)

  def log(self, unit: str) -> str:
    """See `Engine.log`."""
    return self._logs.path(unit)

  def close(self, failed: bool) -> None:
    """See `Engine.close`."""
    from ray.util.placement_group import remove_placement_group

    for kept in self._kept.values():
      _kill(kept.actor)
    for thread in self._threads:
      thread.join(2.0)
    self._kept.clear()
    remove_placement_group(self._group)
    self._cluster.close()
    self._logs.close(failed)

  def _actor(self, unit: str, ticket: Ticket) -> Any:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    index, bundle = self._bundles[unit]
    return self._keeper.options(
      name=f'{self._name}/{unit}/{ticket.life}',
      scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, index),
      **actor_options(bundle),
    ).remote()

  def _follow(
    self, unit: str, kept: _Kept, ticket: Ticket, ended: Callable[[str], None]
  ) -> None:
    import ray

    command = worker_command(self._python, ticket.path)
    try:
      words = (command, ticket.dumps(), os.getcwd())
      pid, host = _ask(kept.actor.start, *words, limit=self._limit)
      kept.started, kept.where = True, f' on {host}'
      self._logs.note(unit, f'started as process {pid} on {host}')
      self._logs.copy(unit, _lines(kept.actor))
      code = _ask(kept.actor.code)
      kept.free = True
      ended(how_it_went(code, self._logs.last_line(unit)))
    except ray.exceptions.GetTimeoutError:
      ended(self._no_place(unit))
    except Exception as error:  # Ray's own, and whatever a lost raylet leads to.
      ended(f'its actor{kept.where} has died: {_gist(error)}')

  def _no_place(self, unit: str) -> str:
    asked = self._bundles[unit][1].resources
    return (
      f'Ray has found no place for it within {self._limit:g} s: it asks for '
      f'{amounts(asked)}, free are {_free(asked)}'
    )


def _lines(actor: Any) -> Iterator[bytes]:
  while (lines := _ask(actor.lines)) is not None:
    yield from lines


def _ask(method: Any, *args: object, limit: float | None = None) -> Any:
  """Asks an actor what may be asked twice: its connection may be lost for a moment."""
  import ray

  for _ in range(_TRIES):
    try:
      return ray.get(method.remote(*args), timeout=limit)
    except ray.exceptions.ActorUnavailableError:
      time.sleep(_PAUSE)
  return ray.get(method.remote(*args), timeout=limit)


def _kill(actor: Any) -> None:
  import ray

  with contextlib.suppress(ray.exceptions.RayError, ValueError):
    ray.kill(actor)


def _free(asked: Mapping[str, float]) -> str:
  import ray

  free = ray.available_resources()
  return amounts({name: free.get(name, 0.0) for name in asked})


def _gist(error: BaseException) -> str:
  """Of Ray's long message on a death, what it died of."""
  text = ' '.join(str(error).split())
  return text.partition('because ')[2].partition(' There are some pot')[0] or text


def _astray(table: Mapping[str, Any], bundles: tuple[Bundle, ...]) -> str:
  """A unit that is not where its labels say; old versions of Ray don't heed them."""
  import ray

  labels = {node['NodeID']: node.get('Labels') or {} for node in ray.nodes()}
  for index, bundle in enumerate(bundles):
    there = labels.get(table['bundles_to_node_id'].get(index), {})
    if any(there.get(name) != value for name, value in bundle.labels.items()):
      return bundle.unit
  return ''
