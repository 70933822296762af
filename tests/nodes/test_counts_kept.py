"""Counts that outlast their counter, and are counted once however often reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from callsheet.errors import ConnectionLost
from callsheet.nodes import count_journal, last_writes
from callsheet.nodes.counter import Counter, Tally

pytestmark = pytest.mark.timeout(60)


def test_a_report_counts_once_however_often_it_is_sent():
  counter = Counter()
  for totals in ({'a': 3}, {'a': 3}, {'a': 5, 'b': 1}, {'a': 4}):
    counter.report('one', totals)
  counter.report('other', {'a': 2})
  assert counter.counts() == {'a': 7, 'b': 1}


def test_a_tally_that_lost_its_answer_reports_again():
  class Losing(Counter):
    lost = 0

    def report(self, source, totals):
      counts = super().report(source, totals)
      self.lost += 1
      if self.lost % 3:
        raise ConnectionLost('went away', 'counter')
      return counts

  counter = Losing()
  tally = Tally(counter)
  for _ in range(4):
    tally.add(steps=10, episodes=1)
  assert counter.counts() == {'steps': 40, 'episodes': 4} and counter.lost > 4


def test_a_counter_that_begins_anew_hears_all_from_who_still_counts():
  counters = [Counter()]

  class Restarted:
    def report(self, source, totals):
      return counters[-1].report(source, totals)

  tally = Tally(Restarted())
  tally.add(steps=10)
  counters.append(Counter())
  tally.add(steps=1)
  assert counters[-1].counts() == {'steps': 11}


def test_it_goes_on_where_it_was(tmp_path):
  first = Counter(str(tmp_path))
  first.add(episodes=2)
  first.report('actor', {'steps': 64})
  second = Counter(str(tmp_path))
  assert second.counts() == {'episodes': 2, 'steps': 64}
  second.report('actor', {'steps': 70})
  second.add(episodes=1)
  assert Counter(str(tmp_path)).counts() == {'episodes': 3, 'steps': 70}
  for each in (first, second):
    each.close()


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
  counter = Counter(str(tmp_path))
  for total in (1, 2, 3):
    counter.report('actor', {'steps': total})
  counter.close()
  journal = tmp_path / 'counts.jsonl'
  journal.write_bytes(journal.read_bytes()[:-3])
  again = Counter(str(tmp_path))
  assert again.counts() == {'steps': 2}
  again.report('actor', {'steps': 4})
  again.close()
  assert Counter(str(tmp_path)).counts() == {'steps': 4}


def test_the_file_stays_small(tmp_path, monkeypatch):
  monkeypatch.setattr(count_journal, '_COMPACT_BYTES', 1000)
  counter = Counter(str(tmp_path))
  for total in range(1, 301):
    counter.report('actor', {'steps': total})
    assert (tmp_path / 'counts.jsonl').stat().st_size < 1100
  counter.close()
  assert Counter(str(tmp_path)).counts() == {'steps': 300}


def test_what_was_answered_outlasts_a_kill(tmp_path):
  """The process is killed while many threads count; each has kept what it was told."""
  code = (
    'import sys, threading\n'
    'from callsheet.nodes.counter import Counter\n'
    'counter = Counter(sys.argv[1])\n'
    'def count(source):\n'
    '  total = 0\n'
    '  while True:\n'
    '    total += 1\n'
    '    counts = counter.report(source, {source: total})\n'
    '    sys.stdout.write(f"{source} {counts[source]}\\n")\n'
    '    sys.stdout.flush()\n'
    'for i in range(3):\n'
    '  threading.Thread(target=count, args=(f"s{i}",)).start()\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code, tmp_path], stdout=subprocess.PIPE, text=True
  )
  assert process.stdout is not None
  told: dict[str, int] = {}
  killed = threading.Timer(0.7, process.send_signal, [signal.SIGKILL])
  for line in process.stdout:
    if not killed.is_alive() and not killed.finished.is_set():
      killed.start()
    if line.endswith('\n') and line.count(' ') == 1:
      source, total = line.split()
      told[source] = max(told.get(source, 0), int(total))
  process.wait()
  counts = Counter(str(tmp_path)).counts()
  assert told and sum(told.values()) > 100
  assert all(counts[source] >= total for source, total in told.items())


def test_a_file_that_can_not_be_written_is_said_once(tmp_path, monkeypatch, caplog):
  counter = Counter(str(tmp_path))
  counter.report('actor', {'steps': 1})

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'write', full)
  for total in (2, 3, 4):
    assert counter.report('actor', {'steps': total}) == {'steps': total}
  monkeypatch.undo()
  [line] = caplog.messages
  assert 'can not be kept in' in line and 'No space left on device' in line
  monkeypatch.setattr(counter._journal, '_try_at', 0.0)
  counter.report('actor', {'steps': 5})
  counter.close()
  assert Counter(str(tmp_path)).counts() == {'steps': 5}


def test_a_disk_that_was_full_has_all_counts_once_there_is_room(tmp_path, monkeypatch):
  counter, write = Counter(str(tmp_path)), os.write
  counter.report('actor', {'steps': 1})
  room = threading.Event()

  def full(*args):
    if not room.is_set():
      raise OSError(28, 'No space left on device')
    return write(*args)

  monkeypatch.setattr(os, 'write', full)
  counter.report('actor', {'steps': 2})
  later = threading.Timer(0.3, room.set)
  later.start()
  counter.close()
  later.join()
  assert Counter(str(tmp_path)).counts() == {'steps': 2}


def test_a_disk_that_stays_full_is_not_waited_for_longer(tmp_path, monkeypatch):
  monkeypatch.setattr(last_writes, 'PATIENCE', 0.2)
  counter = Counter(str(tmp_path))
  counter.report('actor', {'steps': 1})

  def full(*_):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patched:
    patched.setattr(os, 'write', full)
    counter.report('actor', {'steps': 2})
    counter.close()
  assert Counter(str(tmp_path)).counts() == {'steps': 1}
