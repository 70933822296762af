"""A headless Chromium, spoken to over a pair of pipes: no port, no driver."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')


def found() -> str | None:
  """The browser's command, if there is one."""
  return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
  """One page in a browser of its own; close it.

  Args:
    width: of the window, in pixels.
    height: likewise.
    dark: whether the user prefers a dark page.
  """

  def __init__(self, width: int = 1280, height: int = 900, dark: bool = False) -> None:
    command = found()
    assert command is not None
    self._folder = tempfile.mkdtemp(prefix='chromium-')
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # Chromium reads commands from 3 and writes answers to 4; a shell puts them there.
    # Its redirections take numbers of one digit alone, hence the names.
    redirected = f'exec "$@" 3</proc/self/fd/{theirs_in} 4>/proc/self/fd/{theirs_out}'

    self._process = subprocess.Popen(
      [
        'sh',
        '-c',
        redirected,
        'sh',
        command,
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--hide-scrollbars',
        '--remote-debugging-pipe',
        f'--user-data-dir={self._folder}',
        'about:blank',
      ],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      pass_fds=(theirs_in, theirs_out),
      start_new_session=True,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    self._out = ours_out
    self._in = os.fdopen(ours_in, 'rb', buffering=0)
    self._left = b''
    self._numbers = itertools.count(1)
    self._session = ''
    self.problems: list[str] = []
    self.requested: list[str] = []
    targets = self.send('Target.getTargets')['targetInfos']
    page = next(target for target in targets if target['type'] == 'page')
    self._session = self.send(
      'Target.attachToTarget', targetId=page['targetId'], flatten=True
    )['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self.send(f'{domain}.enable')
    self.send(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=width < 600,
    )
    if dark:
      scheme = {'name': 'prefers-color-scheme', 'value': 'dark'}
      self.send('Emulation.setEmulatedMedia', features=[scheme])

  def open(self, url: str) -> None:
    """Goes there."""
    self.send('Page.navigate', url=url)

  def evaluate(self, script: str) -> Any:
    """The value of an expression in the page."""
    told = self.send('Runtime.evaluate', expression=script, returnByValue=True)
    assert 'exceptionDetails' not in told, told
    return told['result'].get('value')

  def wait_for(self, script: str, seconds: float = 30) -> None:
    """Waits until an expression is true."""
    self.until(lambda: self.evaluate(script), script, seconds)

  def until(self, true: Callable[[], object], what: str, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not true():
      assert time.monotonic() < until, f'{what} is not true; {self.problems}'
      time.sleep(0.05)

  def screenshot(self, path: str) -> None:
    """Writes the whole page, from top to bottom, as a PNG."""
    told = self.send('Page.captureScreenshot', captureBeyondViewport=True)
    with open(path, 'wb') as file:
      file.write(base64.b64decode(told['data']))

  def send(self, method: str, **parameters: object) -> Any:
    """One command of the DevTools protocol, and its answer."""
    number = next(self._numbers)
    message: dict[str, object] = {'id': number, 'method': method, 'params': parameters}
    if self._session:
      message['sessionId'] = self._session
    os.write(self._out, json.dumps(message).encode() + b'\0')
    while True:
      answer = self._receive()
      if answer.get('id') == number:
        assert 'error' not in answer, answer
        return answer['result']
      self._note(answer)

  def close(self) -> None:
    """Ends the browser."""
    os.close(self._out)
    self._in.close()
    try:
      self._process.wait(10)
    except subprocess.TimeoutExpired:
      os.killpg(self._process.pid, 9)
      self._process.wait()
    shutil.rmtree(self._folder, ignore_errors=True)

  def __enter__(self) -> Browser:
    return self

  def __exit__(self, *error: object) -> None:
    self.close()

  def _receive(self) -> Any:
    while b'\0' not in self._left:
      more = self._in.read(65536)
      assert more, 'the browser has ended'
      self._left += more
    message, _, self._left = self._left.partition(b'\0')
    return json.loads(message)

  def _note(self, event: Any) -> None:
    told = event.get('params', {})
    method = event.get('method')
    if method == 'Runtime.exceptionThrown':
      details = told['exceptionDetails']
      self.problems.append(str(details.get('exception', details).get('description')))
    elif method == 'Log.entryAdded' and told['entry']['level'] == 'error':
      self.problems.append(told['entry']['text'])
    elif method == 'Network.requestWillBeSent':
      self.requested.append(told['request']['url'])
    elif method == 'Page.javascriptDialogOpening':
      # Whoever is asked says yes; the answer to that comes later.
      number = next(self._numbers)
      os.write(
        self._out,
        json.dumps(
          {
            'id': number,
            'method': 'Page.handleJavaScriptDialog',
            'params': {'accept': True},
            'sessionId': self._session,
          }
        ).encode()
        + b'\0',
      )
