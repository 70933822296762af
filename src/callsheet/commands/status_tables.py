"""The status of a run as tables for a terminal; pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from callsheet.launch.observe.document import EdgeStatus, NodeStatus, Status

T = TypeVar('T')

COLOURS = {
  'running': 'green',
  'serving': 'green',
  'starting': 'cyan',
  'waiting': 'cyan',
  'restarting': 'yellow',
  'stopping': 'yellow',
  'interrupted': 'yellow',
  'finished': 'blue',
  'stopped': 'dim',
  'failed': 'bold red',
  'lost': 'bold red',
}
# Lines that the head, titles and spaces take where height is short.
_AROUND = 9


def whole(status: Status, state: str, height: int | None = None) -> RenderableType:
  """Everything: head, nodes, edges.

  Args:
    status: of the run.
    state: how it stands, see `runs.state`.
    height: lines that there are; None for as many as it takes. Of more nodes and edges
      than fit, those that stand badly or are busiest are shown.
  """
  nodes, edges = len(status.nodes), len(status.edges)
  if height is not None:
    room = max(2, height - _AROUND)
    # Nodes first: edges have what these leave, but for a few.
    nodes = min(nodes, max(room - min(edges, room // 3), 1))
    edges = min(edges, max(room - nodes, 1))
  return Group(
    head(status, state),
    Text(),
    nodes_table(status.nodes, nodes),
    Text(),
    edges_table(status.edges, edges),
  )


def head(status: Status, state: str) -> Text:
  """One line on the run, and one on what holds it."""
  seconds = max(0.0, status.time - status.started)
  text = Text.assemble(
    (status.program, 'bold'),
    f', as {status.backend}: ' if status.backend else ': ',
    (state, COLOURS.get(state, '')),
    f' for {duration(seconds)}' if state in ('running', 'stopping') else '',
    f' after {duration(seconds)}' if state not in ('running', 'stopping') else '',
    f'; {status.page}' if status.page else '',
  )
  if status.reason:
    text.append(f'\n{status.reason}', 'red')
  if status.bottleneck:
    text.append(f'\n{status.bottleneck}')
  return text


def nodes_table(nodes: Sequence[NodeStatus], most: int) -> Table:
  """A line a node, in order of declaration; those that matter most if not all fit."""
  table = _table()
  table.add_column('node', no_wrap=True)
  table.add_column('state', no_wrap=True)
  for title in ('restarts', 'CPU', 'memory'):
    table.add_column(title, justify='right', no_wrap=True)
  on_gpu = any(node.gpu_memory is not None for node in nodes)
  if on_gpu:
    table.add_column('GPU', justify='right', no_wrap=True)
  table.add_column('waits for', overflow='fold', min_width=8)
  for node in _chosen(nodes, [_concern(node) for node in nodes], most):
    state = node.state if node.answers or node.silent is None else 'silent'
    if node.state not in ('running', 'serving', 'finished'):
      state = node.state
    table.add_row(
      node.name,
      Text(state, COLOURS.get(state, 'bold red' if state == 'silent' else '')),
      str(node.restarts) if node.restarts else '',
      '' if node.cpu is None else f'{node.cpu:.0%}',
      '' if node.memory is None else size(node.memory),
      *([size(node.gpu_memory) if node.gpu_memory is not None else ''] * on_gpu),
      node.waits.text,
    )
  _say_rest(table, len(nodes) - most, 'nodes')
  return narrowed(table, len(table.columns) - 1)


def edges_table(edges: Sequence[EdgeStatus], most: int) -> Table:
  """A line an edge, in order of declaration; the busiest if not all fit."""
  table = _table()
  table.add_column('calls', overflow='fold', min_width=12)
  for title in ('calls/s', 'bytes/s', 'p50', 'p99', 'open'):
    table.add_column(title, justify='right', no_wrap=True)
  for edge in _chosen(edges, [edge.calls_per_second or 0.0 for edge in edges], most):
    table.add_row(
      f'{edge.caller} → {edge.callee}',
      '-' if edge.calls_per_second is None else f'{edge.calls_per_second:,.1f}',
      '-' if edge.bytes_per_second is None else size(edge.bytes_per_second),
      latency(edge.latency_p50),
      latency(edge.latency_p99),
      str(edge.open) if edge.open else '',
    )
  _say_rest(table, len(edges) - most, 'edges')
  return narrowed(table)


def duration(seconds: float) -> str:
  """'1:02:05', or '3 d 1:02:05'."""
  minutes, left = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  days, hours = divmod(hours, 24)
  clock = f'{hours}:{minutes:02}:{left:02}'
  return f'{days} d {clock}' if days else clock


def size(count: float) -> str:
  """Bytes: '512 B', '1.5 MB'."""
  for unit in ('B', 'kB', 'MB'):
    if count < 1000:
      return f'{count:.0f} {unit}' if unit == 'B' else f'{count:.1f} {unit}'
    count /= 1000
  return f'{count:.1f} GB'


def latency(seconds: float | None) -> str:
  """Of a call: '0.4 ms', '1.2 s'."""
  if seconds is None:
    return '-'
  if seconds >= 1:
    return f'{seconds:.1f} s'
  return f'{seconds * 1e3:.2f} ms' if seconds < 0.01 else f'{seconds * 1e3:.0f} ms'


def narrowed(table: Table, gives_way: int = 0) -> Table:
  """Has one column alone give way where the terminal is too narrow; rich takes of all.

  Args:
    table: with all of its rows.
    gives_way: the number of that column, which is wrapped.
  """
  for index, column in enumerate(table.columns):
    if index != gives_way:
      cells = [*column.cells, column.header]
      column.min_width = max(cell_len(_plain(cell)) for cell in cells)
      column.no_wrap = True
  return table


def _plain(cell: object) -> str:
  return cell.plain if isinstance(cell, Text) else str(cell)


def _table() -> Table:
  return Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style='bold', expand=False)


def _concern(node: NodeStatus) -> float:
  """How much a node matters where not all can be shown."""
  if node.state in ('failed', 'restarting'):
    return 1e6
  up = node.state in ('running', 'serving', 'finished')
  if up and node.silent is not None and not node.answers:
    return 1e5
  return (node.cpu or 0.0) + min(node.restarts, 1) + node.waits.share


def _chosen(items: Sequence[T], weights: Sequence[float], most: int) -> list[T]:
  """The heaviest, in their own order."""
  order = sorted(range(len(items)), key=lambda i: -weights[i])[:most]
  return [items[i] for i in sorted(order)]


def _say_rest(table: Table, count: int, what: str) -> None:
  if count > 0:
    table.add_row(Text(f'... {count} {what} more', 'dim'))
