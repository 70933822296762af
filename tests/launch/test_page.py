"""The page of a running program: who may see it, what it tells, what its buttons do."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from callsheet import Program
from callsheet.errors import UsageError
from callsheet.launch import Processes, Running, start
from callsheet.launch.observe.gathering import Observing
from callsheet.launch.page.access import holds, is_own, own_names
from callsheet.launch.page.answers import tail
from callsheet.launch.page.curves import FIGURES, Curves
from callsheet.launch.page.server import HEADER, Page
from tests.launch import browser, services
from tests.launch.conftest import wait_for


class Snaps:
  """Takes snapshots, or says why not."""

  def __init__(self, full: bool = False) -> None:
    self._full = full

  def snapshot(self) -> str:
    if self._full:
      raise UsageError('the disk is full')
    return 'runs/mine/snapshots/1'


def small(hearts: int = 1, full: bool | None = None) -> Program:
  """A tally, hearts, and with `full` a node that takes snapshots."""
  program = Program('small')
  tally = program.add('tally', services.Tally)
  with program.group('heart'):
    for _ in range(hearts):
      program.add('heart', services.Heart, tally, 'beat')
  if full is not None:
    program.add('snapshotter', Snaps, full)
  return program


@contextmanager
def served(
  program: Program, folder: Path | None = None, **options: Any
) -> Iterator[tuple[Page, Running, threading.Thread]]:
  """The page of a program that is followed in another thread."""
  directory = None if folder is None else str(folder)
  backend = Processes() if folder is None else Processes(log_directory=str(folder))
  with Observing(directory) as observing, start(program, backend) as running:
    observing.follow(running)
    follower = threading.Thread(target=running.wait, name='follower')
    with Page(observing, running, directory, **options) as page:
      follower.start()
      wait_for(lambda: all(node.answers for node in observing.status.nodes))
      try:
        yield page, running, follower
      finally:
        running.end()
        follower.join(60)


def ask(
  page: Page, path: str, method: str = 'GET', token: str | None = '', host: str = ''
) -> tuple[int, Any, http.client.HTTPResponse]:
  """The code and the body of an answer; the token is the right one by default."""
  connection = http.client.HTTPConnection('127.0.0.1', page.port, timeout=20)
  headers = {'Host': host or f'localhost:{page.port}'}
  if token is not None:
    headers[HEADER] = token or page.token
  connection.request(method, path, headers=headers)
  answer = connection.getresponse()
  body = answer.read().decode()
  connection.close()
  if answer.getheader('Content-Type', '').startswith('application/json'):
    return answer.status, json.loads(body), answer
  return answer.status, body, answer


def test_who_may_see_it_and_what_it_tells(tmp_path: Path):
  (tmp_path / 'metrics.jsonl').write_text('{"seconds": 1.0, "actor/return": 9}\n')
  with served(small(), tmp_path) as (page, _, _):
    assert page.url == f'http://localhost:{page.port}/?token={page.token}'
    for path in ('/', '/status', '/log?node=tally', '/nothing'):
      for token in (None, 'wrong'):
        code, told, _ = ask(page, path, token=token)
        assert code == 403 and 'token' in told['text']
    for path in ('/stop', '/stacks?node=tally', f'/stop?token={page.token}'):
      assert ask(page, path, 'POST', token=None)[0] == 403
    for host in ('evil.example', f'evil.example:{page.port}', 'localhost.evil.example'):
      assert ask(page, '/status', host=host)[0] == 403
      assert ask(page, '/stop', 'POST', host=host)[0] == 403
    for host in ('127.0.0.1', f'[::1]:{page.port}', 'LOCALHOST'):
      assert ask(page, '/status', host=host)[0] == 200
    assert ask(page, '/nothing')[0] == 404
    assert ask(page, '/stop')[0] == 404  # That is for POST alone.
    assert ask(page, '/status', 'POST')[0] == 404

    code, text, answer = ask(page, f'/?token={page.token}', token=None)
    assert code == 200 and '{{' not in text and page.token not in text
    policy = answer.getheader('Content-Security-Policy')
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert answer.getheader('Cache-Control') == 'no-store'

    _, status, _ = ask(page, '/status')
    assert [node['name'] for node in status['nodes']] == ['tally', 'heart/0']
    assert status['levels'] == [['heart/0'], ['tally']]
    assert status['snapshots'] is False
    assert status['page'] == f'http://localhost:{page.port}/'
    _, curves, _ = ask(page, '/curves')
    assert curves['rows'][0][FIGURES.index('actor/return')] == 9
    _, log, _ = ask(page, f'/log?node={quote("heart/0", safe="")}')
    assert log['path'].endswith('heart-0.log') and 'starts' in log['text']
    _, stacks, _ = ask(page, '/stacks?node=heart/0', 'POST')
    assert 'services.py' in stacks['text'] and "thread 'heart/0'" in stacks['text']
    assert 'sentence' in ask(page, '/bottlenecks')[1]
    for path, method in (('/log?node=nobody', 'GET'), ('/stacks?node=nobody', 'POST')):
      code, told, _ = ask(page, path, method)
      assert code == 409 and "no node 'nobody'" in told['text']
    code, told, _ = ask(page, '/snapshot', 'POST')
    assert code == 409 and 'takes no snapshots' in told['text']


def test_the_stop_button_ends_the_program_well():
  with served(small()) as (page, running, follower):
    assert ask(page, '/stop', 'POST')[:2] == (200, {'text': 'stopping'})
    follower.join(60)
    assert not follower.is_alive() and running.over


@pytest.mark.parametrize(
  ('full', 'code', 'text'),
  [(False, 200, 'snapshot: runs/mine/snapshots/1'), (True, 409, 'the disk is full')],
)
def test_the_snapshot_button(full: bool, code: int, text: str):
  with served(small(full=full)) as (page, _, _):
    assert ask(page, '/status')[1]['snapshots'] is True
    assert ask(page, '/snapshot', 'POST')[:2] == (code, {'text': text})


def test_a_port_that_is_taken_is_refused():
  with (
    served(small()) as (page, running, _),
    pytest.raises(UsageError, match='another --page_port'),
  ):
    Page(Observing(), running, port=page.port)


def test_names_of_this_host():
  names = own_names('127.0.0.1')
  assert is_own('localhost:1', names) and is_own('[::1]:1', names)
  assert is_own('10.0.0.7:80', names)  # An address can't be rebound.
  for header in (None, '', 'evil.example', '[evil', 'localhost.evil.example:1'):
    assert not is_own(header, names)
  assert is_own('box.example', own_names('box.example'))


def test_tokens():
  assert holds('abc', 'abc')
  for given in (None, '', 'ab', 'abcd', 'äbc'):
    assert not holds(given, 'abc')


def test_the_tail_of_a_log(tmp_path: Path):
  log = tmp_path / 'a.log'
  log.write_bytes(b'one\ntwo\nthr\xffee\n')
  assert tail(str(log)) == 'one\ntwo\nthr�ee\n'
  assert tail(str(log), 9) == 'thr�ee\n'
  assert tail(str(tmp_path / 'none')) == '' and tail('') == ''


def test_curves_follow_a_file_that_grows_and_begins_anew(tmp_path: Path):
  path = tmp_path / 'metrics.jsonl'
  curves = Curves(str(path))
  assert curves.read()['rows'] == []
  seconds = FIGURES.index('seconds')
  path.write_text('{"seconds": 1}\nnonsense\n{"seconds": 2}\n{"seco')
  assert [row[seconds] for row in curves.read()['rows']] == [1, 2]
  with open(path, 'a') as file:
    file.write('nds": 3}\n')
  assert [row[seconds] for row in curves.read()['rows']] == [1, 2, 3]
  path.write_text('{"seconds": 9}\n')
  assert [row[seconds] for row in curves.read()['rows']] == [9]


def test_long_curves_are_thinned_out_and_keep_their_ends(tmp_path: Path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(''.join(f'{{"seconds": {second}}}\n' for second in range(5000)))
  rows = Curves(str(path)).read()['rows']
  seconds = [row[FIGURES.index('seconds')] for row in rows]
  assert len(seconds) <= 801
  assert seconds[0] == 0 and seconds[-1] == 4999 and seconds == sorted(set(seconds))


@pytest.mark.skipif(
  browser.found() is None, reason='no browser here: apt-get install chromium'
)
@pytest.mark.parametrize(('width', 'dark'), [(360, True), (1280, False)])
def test_in_a_browser(tmp_path: Path, width: int, dark: bool):
  program = small(hearts=7, full=False)
  rows = [{'seconds': s, 'actor_steps': s, 'actor/return': s} for s in range(5)]
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (tmp_path / 'metrics.jsonl').write_text(text)
  with (
    served(program, tmp_path) as (page, running, follower),
    browser.Browser(width, 800, dark) as seen,
  ):
    seen.open(page.url)
    seen.wait_for("document.querySelectorAll('#nodes details').length === 9")
    # Seven that are alike are one box, and its edge has its figures.
    assert seen.evaluate("document.querySelectorAll('#graph .box').length") == 3
    assert 'heart \xd77' in seen.evaluate(
      "document.querySelector('#graph').textContent"
    )
    seen.wait_for(
      "/\\d.*B\\/s/.test(document.querySelector('#graph .label + text')?.textContent)"
    )
    seen.wait_for("document.querySelector('#curves polyline') !== null")
    assert seen.evaluate('document.documentElement.scrollWidth') == width
    # A node's log, and its stacks.
    seen.evaluate("document.getElementById('node-heart/0').open = true; 1")
    shown = "document.getElementById('node-heart/0').querySelector('pre').textContent"
    seen.wait_for(f"{shown}.includes('starts')")
    seen.evaluate(
      "document.getElementById('node-heart/0').querySelectorAll('button')[1].click(); 1"
    )
    seen.wait_for(f"{shown}.includes('services.py')")
    seen.evaluate("document.getElementById('snapshot').click(); 1")
    seen.wait_for("document.getElementById('said').textContent.includes('snapshots/1')")
    ground = seen.evaluate('getComputedStyle(document.body).backgroundColor')
    assert ground == ('rgb(18, 21, 27)' if dark else 'rgb(246, 247, 249)')
    assert seen.problems == []
    assert all(url.startswith((page.url[:20], 'data:')) for url in seen.requested)
    # Stop, and yes, really.
    seen.send(
      'Runtime.evaluate',
      expression=("setTimeout(() => document.getElementById('stop').click(), 0); 1"),
    )
    seen.until(lambda: seen.evaluate('1') and running.over, 'the program has ended')
    follower.join(60)
  assert not follower.is_alive()
