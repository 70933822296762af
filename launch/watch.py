"""Who has been silent for too long, and what it was doing."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from callsheet.launch.crew import Crew
from callsheet.launch.events import Beat
from callsheet.programs.plan import NodePlan

LOOK = 0.5  # seconds between two looks
_DUMP = 0.5  # seconds until stacks are written
_START = 60.0  # seconds that a process has at least until the first beat of its own


@dataclass(frozen=True)
class Silent:
  """A node that counts as hung.

  Attributes:
    node: its name.
    unit: to be ended.
    reason: why, in words.
    stacks: what it was doing; empty where that is in its log.
  """

  node: str
  unit: str
  reason: str
  stacks: str = ''


@dataclass
class _Heard:
  beats: int = 0
  seen: int = 0
  silent: float = 0.0
  said: bool = False
  quiet: Mapping[str, float] = field(default_factory=dict)


class Watch:
  """Hears the beats of units, and says which have fallen silent.

  Time counts only while somebody looks: where the launcher itself was stopped, or did
  something else, nobody was silent. A unit is watched from its first beat on.

  Args:
    units: the nodes of each.
    crew: dumps their stacks.
    say: prints a line under a node's name.

  Attributes:
    next_look: when it is time to look again (monotonic).
  """

  def __init__(
    self,
    units: Mapping[str, Sequence[NodePlan]],
    crew: Crew,
    say: Callable[[str, str], None],
  ) -> None:
    self._units, self._crew, self._say = units, crew, say
    self.next_look = 0.0
    self._lock = threading.Lock()
    self._heard: dict[str, _Heard] = {}
    self._looked_at = time.monotonic()

  def hear(self, beat: Beat) -> None:
    """Takes in a beat of a unit's present life, from any thread."""
    with self._lock:
      heard = self._heard.setdefault(beat.unit, _Heard())
      heard.beats, heard.quiet = heard.beats + 1, beat.quiet

  def forget(self, unit: str) -> None:
    """A life of the unit begins, or has ended."""
    with self._lock:
      self._heard.pop(unit, None)

  def look(self) -> list[Silent]:
    """Those that have passed a limit since they were heard last, each once.

    Their stacks are dumped by then. Most of the time it is not time to look.
    """
    now = time.monotonic()
    if now < self.next_look:
      return []
    self.next_look = now + LOOK
    silent = self._silent(now)
    if not silent:
      return []
    dumped = [(each, self._crew.dump(each.unit)) for each in silent]
    time.sleep(_DUMP)
    for each, stacks in dumped:
      log = self._crew.log(each.unit)
      where = stacks.missing or (f'its stacks: {log}' if log else 'its stacks follow')
      self._say(each.node, f'{each.reason}; {where}; it is ended')
    return [
      dataclasses.replace(each, stacks=stacks.text or '') for each, stacks in dumped
    ]

  def _silent(self, now: float) -> list[Silent]:
    passed, self._looked_at = min(now - self._looked_at, 2 * LOOK), now
    silent = []
    with self._lock:
      for unit, heard in list(self._heard.items()):
        if heard.said:  # It is being ended, and may beat until it is gone.
          continue
        anew, heard.seen = heard.beats > heard.seen, heard.beats
        heard.silent = 0.0 if anew else heard.silent + passed
        found = self._process(unit, heard) or self._run(unit, heard)
        if found is not None:
          silent.append(found)
          heard.said = True
    return silent

  def _process(self, unit: str, heard: _Heard) -> Silent | None:
    limits = [node.silence.process for node in self._units[unit]]
    limit = min((each for each in limits if each is not None), default=None)
    if limit is None:
      return None
    if heard.silent < (limit if heard.beats > 1 else max(limit, _START)):
      return None
    reason = f'its process is there but has given no sign of life for {limit:g} s'
    return Silent(self._units[unit][0].name, unit, reason)

  def _run(self, unit: str, heard: _Heard) -> Silent | None:
    for node in self._units[unit]:
      limit = node.silence.run
      if limit is not None and heard.quiet.get(node.name, 0.0) >= limit:
        reason = f'it hangs: no call made, answered or waited for in {limit:g} s'
        return Silent(node.name, unit, reason)
    return None
