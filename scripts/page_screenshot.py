"""Draws launch/page.png anew: the page of a DQN run, in a headless Chromium.

PYTHONPATH=. python scripts/page_screenshot.py 60 launch/page.png
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from tests.launch.browser import Browser


def main() -> None:
  """Trains for so many seconds, and looks."""
  seconds, path = float(sys.argv[1]), sys.argv[2]
  with tempfile.TemporaryDirectory() as folder:
    run = subprocess.Popen(
      [
        Path(sys.executable).with_name('callsheet'),
        'run',
        'dqn',
        '--env=CartPole-v1',
        '--target_return=501',
        '--max_actor_steps=10000000',
        '--name=dqn-cartpole',
        f'--runs_directory={folder}',
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    assert run.stdout is not None
    try:
      url = next(
        found[0]
        for line in run.stdout
        if (found := re.search(r'http://localhost:\S+', line))
      )
      time.sleep(seconds)
      browser = Browser(1280)
      try:
        browser.open(url)
        browser.wait_for("document.querySelector('svg') !== null")
        time.sleep(5)  # Rates are of a few seconds.
        browser.screenshot(path)
        Image.open(path).quantize(64).save(path, optimize=True)
      finally:
        browser.close()
    finally:
      run.terminate()
      run.communicate()


if __name__ == '__main__':
  main()
