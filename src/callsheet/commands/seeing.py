"""A program that is launched from a command line shows how it stands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from absl import flags

from callsheet.launch.observe.gathering import Observing
from callsheet.launch.page.server import Page
from callsheet.launch.supervisor import Running

OWN = ('page', 'page_port', 'page_host')


def define(values: flags.FlagValues) -> None:
  """Defines the flags of the page."""
  flags.DEFINE_bool(
    'page', True, 'Whether the program serves a page of itself.', flag_values=values
  )
  flags.DEFINE_integer(
    'page_port',
    0,
    "The page's port; 0 takes any free one.",
    0,
    65535,
    flag_values=values,
  )
  flags.DEFINE_string(
    'page_host',
    '127.0.0.1',
    'What the page listens on: this machine alone, unless told otherwise.',
    flag_values=values,
  )


@contextlib.contextmanager
def seen(
  values: flags.FlagValues,
  running: Running,
  observing: Observing,
  say: Callable[[str], None],
  folder: str | None = None,
) -> Iterator[None]:
  """Keeps the program's status, and serves its page, until the context is left.

  Args:
    values: the parsed flags.
    running: the program.
    observing: entered before the program was started.
    say: is told the page's address, and in the end what held the program.
    folder: of the run; None if there is none.

  Raises:
    UsageError: the page's port can't be had.
  """
  observing.follow(running)
  with contextlib.ExitStack() as stack:
    if values.page:
      page = Page(
        observing, running, folder, host=values.page_host, port=values.page_port
      )
      stack.enter_context(page)
      say(f'its page: {page.url}')
    yield
