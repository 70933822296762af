"""A service of ours as a Launchpad node. Imports Launchpad, and so TensorFlow."""

from __future__ import annotations

import inspect
import secrets
from typing import Any

import launchpad as lp
from launchpad.nodes.base import Handle

from callsheet.launch import courier
from callsheet.launch.launchpad.adopted import client


class ServiceHandle(Handle):  # type: ignore[misc]
  """Becomes a client of a `ServiceNode` in the node that it is given to."""

  def __init__(self, address: Any, secret: bytes, peer: str) -> None:
    self._address, self._secret, self._peer = address, secret, peer

  def dereference(self) -> Any:
    """The client; see `launchpad.client`."""
    return client(courier.connect(_local(self._address), self._secret, peer=self._peer))


class ServiceNode(lp.PyClassNode):  # type: ignore[misc]
  """See `service_node`; its secret travels in Launchpad's pickle of the node."""

  def __init__(self, make: Any, *args: Any, **kwargs: Any) -> None:
    super().__init__(make, *args, **kwargs)
    self._address = lp.Address('callsheet')
    self.allocate_address(self._address)
    self._secret = secrets.token_bytes(32)
    self._peer = getattr(make, '__name__', 'service')

  def create_handle(self) -> ServiceHandle:
    """See Launchpad's `Node`."""
    handle = ServiceHandle(self._address, self._secret, self._peer)
    return self._track_handle(handle)  # type: ignore[no-any-return]

  def run(self) -> None:
    """Builds the service, serves it and runs it."""
    service = self._construct_instance()
    server = courier.Server(_local(self._address), self._secret, self._peer)
    try:
      server.serve(service)
      run = getattr(service, 'run', None)
      if not callable(run) or not self._should_run:
        lp.wait_for_stop()
      elif 'stop' in inspect.signature(run).parameters:
        run(stop=lp.stop_event())
      else:
        run()
    finally:
      close = getattr(service, 'close', None)
      if callable(close):
        close()
      server.close()


def _local(address: Any) -> str:
  return f'tcp:127.0.0.1:{lp.get_port_from_address(address.resolve())}'
