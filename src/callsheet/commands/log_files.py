"""The logs in the folder of a run: which there are, and what is new in them."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from callsheet.errors import UsageError
from callsheet.launch.observe.document import Status

_SUFFIX = '.log'
_BLOCK = 1 << 20


@dataclass(frozen=True)
class LogFile:
  """One file.

  Attributes:
    name: of the node whose output it has, or of the nodes' that share a process.
    path: of the file.
  """

  name: str
  path: str


def names_of(status: Status | None) -> dict[str, str]:
  """The unit that each file is of, by the file's name."""
  nodes = () if status is None else status.nodes
  return {os.path.basename(node.log): node.unit or node.name for node in nodes}


def files(folder: str, names: Mapping[str, str]) -> list[LogFile]:
  """All that there are by now, in the order of their names.

  Args:
    folder: of the run.
    names: see `names_of`; a file that isn't there is called as it is.
  """
  logs = os.path.join(folder, 'logs')
  found: list[str] = []
  with contextlib.suppress(FileNotFoundError):
    found = sorted(name for name in os.listdir(logs) if name.endswith(_SUFFIX))
  return [
    LogFile(names.get(name, name.removesuffix(_SUFFIX)), os.path.join(logs, name))
    for name in found
  ]


def of_node(
  found: Iterable[LogFile], node: str, status: Status | None
) -> list[LogFile]:
  """Those of a node, or of all nodes of a group.

  Args:
    found: all.
    node: 'actor/0', its file's name 'actor-0', or 'actor' for all actors.
    status: of the run, which knows the nodes that share a process.
  """
  units = {each.name: each.unit for each in status.nodes} if status else {}
  wanted = {units.get(node, node), node}
  chosen = []
  for file in found:
    stem = os.path.basename(file.path).removesuffix(_SUFFIX)
    names = {file.name, stem}
    groups = {file.name.rpartition('/')[0], file.name.partition('/')[0]}
    # Without a status it isn't known what stood in place of the last '-'.
    if file.name == stem and (number := stem.rpartition('-'))[2].isdigit():
      groups.add(number[0])
      names.add(f'{number[0]}/{number[2]}')
    if wanted & (names | groups - {''}):
      chosen.append(file)
  return chosen


def refuse(found: Iterable[LogFile], node: str, usage: str) -> UsageError:
  """What to raise where a node has no log."""
  names = [file.name for file in found]
  near = difflib.get_close_matches(node, names, n=1)
  hint = f'did you mean {near[0]!r}? ' if near else ''
  there = ', '.join(names) or 'none at all'
  return UsageError(f'no log of {node!r}; {hint}there are: {there}; right is: {usage}')


class Tail:
  """What is new in a file, whatever happens to it.

  A file that was put in another's place, or that was cut, is read from its beginning
  once the end of the former was read.

  Args:
    path: of the file, which needn't be there yet.
    last: lines to begin with, of those that are there; None for all.
  """

  def __init__(self, path: str, last: int | None = None) -> None:
    self._path = path
    self._file: BinaryIO | None = None
    self._half = b''
    if last is not None:
      self._begin(last)

  def read(self) -> list[str]:
    """The lines that have come since the last call, without their ends."""
    lines = self._rest()
    if self._moved():
      self.close()
      lines += self.half()
      lines += self._rest()
    return lines

  def half(self) -> list[str]:
    """The line whose end has not come, if any; it will not be given again."""
    half, self._half = self._half, b''
    return [half.decode(errors='replace')] if half else []

  def close(self) -> None:
    """Closes the file."""
    if self._file is not None:
      self._file.close()
    self._file = None

  def _begin(self, last: int) -> None:
    lines: deque[bytes] = deque(maxlen=last)
    if (file := self._opened()) is not None:
      for line in file:
        lines.append(line)
    self._half = b''.join(lines)

  def _opened(self) -> BinaryIO | None:
    if self._file is None:
      with contextlib.suppress(FileNotFoundError):
        self._file = open(self._path, 'rb')  # noqa: SIM115
    return self._file

  def _rest(self) -> list[str]:
    file = self._opened()
    while file is not None and (block := file.read(_BLOCK)):
      self._half += block
    *whole, self._half = self._half.split(b'\n')
    return [line.decode(errors='replace') for line in whole]

  def _moved(self) -> bool:
    """Whether the path leads elsewhere by now, or the file was cut."""
    if self._file is None:
      return False
    mine = os.fstat(self._file.fileno())
    try:
      now = os.stat(self._path)
    except FileNotFoundError:
      return False
    other = (mine.st_dev, mine.st_ino) != (now.st_dev, now.st_ino)
    return other or now.st_size < self._file.tell()
