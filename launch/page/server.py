"""The page's server: the standard library's, in threads of the launcher."""

from __future__ import annotations

import importlib.resources
import json
import secrets
import threading
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from callsheet.errors import UsageError
from callsheet.launch.observe.gathering import Observing
from callsheet.launch.page.access import holds, is_own, own_names
from callsheet.launch.page.answers import Answers, answer
from callsheet.launch.supervisor import Running

HEADER = 'X-Callsheet-Token'
_SECONDS = 10.0  # that a request may take to come


class Page:
  """Serves the page of a running program until it is closed.

  Whoever has its `url` sees the program and can stop it: the token in it is the key.
  Requests without it, or that name another host, are refused with 403.

  Args:
    observing: keeps the program's status; its documents name the page from now on.
    running: the program.
    folder: of the run, for the learning curves; None if there is none.
    host: what to listen on; by default this machine alone can reach it.
    port: 0 for any free one.
    token: a new one by default.

  Raises:
    UsageError: the port can't be had.
  """

  def __init__(
    self,
    observing: Observing,
    running: Running,
    folder: str | None = None,
    *,
    host: str = '127.0.0.1',
    port: int = 0,
    token: str | None = None,
  ) -> None:
    self.token = token or secrets.token_urlsafe(16)
    try:
      self._server = _Server((host, port), _Request)
    except OSError as error:
      raise UsageError(
        f'the page can not be served at {host}:{port} ({error.strerror or error}); '
        'name another --page_port, 0 for any free one, or --page=false for none'
      ) from None
    self._server.token = self.token
    self._server.names = own_names(host)
    self._server.answers = Answers(observing, running, folder)
    self.port = int(self._server.server_address[1])
    loopback = host in ('127.0.0.1', 'localhost', '::1')
    observing.page = f'http://{"localhost" if loopback else host}:{self.port}/'
    self.url = f'{observing.page}?token={self.token}'
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(0.1,), daemon=True, name='page'
    )
    self._thread.start()

  def close(self) -> None:
    """Serves no more; requests under way are answered."""
    self._server.shutdown()
    self._thread.join()
    self._server.server_close()

  def __enter__(self) -> Page:
    return self

  def __exit__(self, *error: object) -> None:
    self.close()


class _Server(ThreadingHTTPServer):
  daemon_threads = True
  allow_reuse_address = True
  token: str
  names: frozenset[str]
  answers: Answers

  def handle_error(self, request: Any, client_address: Any) -> None:
    """A browser that goes away is no error of the program's."""


class _Request(BaseHTTPRequestHandler):
  server: _Server
  server_version, sys_version = 'callsheet', ''
  timeout = _SECONDS

  def do_GET(self) -> None:
    url = urlsplit(self.path)
    query = parse_qs(url.query)
    given = self.headers.get(HEADER) or query.get('token', [None])[0]
    if not self._may(given):
      return
    if url.path == '/':
      nonce = secrets.token_urlsafe(16)
      self._send(200, _page(nonce), 'text/html', nonce)
    else:
      self._answer(self.server.answers.asked, url.path, query)

  def do_POST(self) -> None:
    url = urlsplit(self.path)
    # In a header, which no other site's form can set.
    if self._may(self.headers.get(HEADER)):
      self._answer(self.server.answers.pressed, url.path, parse_qs(url.query))

  def _answer(self, acts: Any, path: str, query: dict[str, list[str]]) -> None:
    act = acts.get(path)
    if act is None:
      self._refuse(HTTPStatus.NOT_FOUND, f'there is no {path}')
      return
    code, body = answer(act, query.get('node', [''])[0])
    self._send(code, body, 'application/json')

  def _may(self, given: str | None) -> bool:
    if not is_own(self.headers.get('Host'), self.server.names):
      self._refuse(HTTPStatus.FORBIDDEN, 'this is another host')
      return False
    if not holds(given, self.server.token):
      self._refuse(
        HTTPStatus.FORBIDDEN,
        'the token is missing or of another run: open the address that was printed '
        'when the program started, http://localhost:PORT/?token=...',
      )
      return False
    return True

  def _refuse(self, code: HTTPStatus, text: str) -> None:
    self._send(int(code), json.dumps({'text': text}), 'application/json')

  def _send(self, code: int, body: str, kind: str, nonce: str = '') -> None:
    content = body.encode()
    scripts = (
      f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; " if nonce else ''
    )
    self.send_response(code)
    for name, value in (
      ('Content-Type', f'{kind}; charset=utf-8'),
      ('Content-Length', str(len(content))),
      ('Cache-Control', 'no-store'),
      ('Referrer-Policy', 'no-referrer'),
      ('X-Content-Type-Options', 'nosniff'),
      ('X-Frame-Options', 'DENY'),
      (
        'Content-Security-Policy',
        f"default-src 'none'; {scripts}connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      ),
    ):
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(content)

  def log_message(self, format: str, *args: Any) -> None:
    """The terminal is the program's."""


def _page(nonce: str) -> str:
  """The whole page: nothing of it is fetched from elsewhere."""
  page, style, graph, script = map(
    _shipped, ('page.html', 'page.css', 'graph.js', 'page.js')
  )
  page = page.replace('{{style}}', style).replace('{{script}}', f'{graph}\n{script}')
  return page.replace('{{nonce}}', nonce)


@cache
def _shipped(name: str) -> str:
  return (importlib.resources.files(__package__) / name).read_text(encoding='utf-8')
