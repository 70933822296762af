"""Both sides prove that they hold the program's secret, before anything is unpickled.

client -> server   magic, nonce_c                       40 bytes
server -> client   magic, nonce_s, HMAC('server', ...)  72 bytes
client -> server   HMAC('client', ...)                  32 bytes

Only these fixed sizes are read. The proofs differ by role, so none can be reflected.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import time

from callsheet.errors import AuthError, UsageError

_MAGIC = b'CALLSHT\x01'
_NONCE = 32
_PROOF = 32


def check_secret(secret: bytes) -> None:
  """Refuses an empty secret, with which anybody could run code in this process.

  Raises:
    UsageError: it is empty or not bytes.
  """
  if not isinstance(secret, bytes) or not secret:
    raise UsageError(
      f"the courier's secret must be non-empty bytes, not {secret!r:.20}: "
      'whoever can call a node can run code in it; use secrets.token_bytes(32)'
    )


def greet(sock: socket.socket, secret: bytes, until: float, peer: str) -> None:
  """The client's side.

  Raises:
    AuthError: what answers does not hold the same secret, or is no courier.
    OSError: the connection ended or `until` (monotonic seconds) passed.
  """
  nonce = secrets.token_bytes(_NONCE)
  sock.sendall(_MAGIC + nonce)
  answer = _read(sock, len(_MAGIC) + _NONCE + _PROOF, until)
  if not answer.startswith(_MAGIC):
    raise AuthError(
      f'what answers as {peer!r} is not a Callsheet courier of this version', peer
    )
  theirs = answer[len(_MAGIC) : len(_MAGIC) + _NONCE]
  if not hmac.compare_digest(
    answer[-_PROOF:], _proof(secret, b'server', nonce, theirs)
  ):
    raise AuthError(
      f'{peer!r} does not hold the same secret as this process: both must be started '
      'by the same program (or be given the same secret)',
      peer,
    )
  sock.sendall(_proof(secret, b'client', nonce, theirs))


def admit(sock: socket.socket, secret: bytes, until: float) -> bool:
  """The server's side: whether the client holds the secret.

  Raises:
    OSError: the connection ended or `until` (monotonic seconds) passed.
  """
  hello = _read(sock, len(_MAGIC) + _NONCE, until)
  if not hello.startswith(_MAGIC):
    return False
  theirs = hello[len(_MAGIC) :]
  nonce = secrets.token_bytes(_NONCE)
  sock.sendall(_MAGIC + nonce + _proof(secret, b'server', theirs, nonce))
  proof = _read(sock, _PROOF, until)
  return hmac.compare_digest(proof, _proof(secret, b'client', theirs, nonce))


def _proof(secret: bytes, role: bytes, client: bytes, server: bytes) -> bytes:
  return hmac.digest(secret, b'callsheet ' + role + client + server, 'sha256')


def _read(sock: socket.socket, size: int, until: float) -> bytes:
  data = b''
  while len(data) < size:
    left = until - time.monotonic()
    if left <= 0:
      raise TimeoutError('the handshake took too long')
    sock.settimeout(min(left, 3600.0))
    part = sock.recv(size - len(data))
    if not part:
      raise ConnectionResetError('closed during the handshake')
    data += part
  return data
