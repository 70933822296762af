"""Kubernetes' own command line, for the little that has to be asked of a cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

from callsheet.errors import UsageError

_PATIENCE = 10  # seconds for an answer
_DELETION = 60  # seconds that pods may take to be gone
_INSTALL = (
  'install the JobSet controller first: https://jobset.sigs.k8s.io/docs/installation'
)


class Kubectl:
  """Asks the cluster that `kubectl` is set to.

  Args:
    command: its words, ('kubectl', '--context=here').
    namespace: where things are; None for that of the context.
  """

  def __init__(self, command: Sequence[str], namespace: str | None) -> None:
    self._command = list(command)
    self._namespace = [] if namespace is None else [f'--namespace={namespace}']

  def words(self, *arguments: str) -> str:
    """A command line for the user."""
    return ' '.join([*self._command, *self._namespace, *arguments])

  def check(self) -> None:
    """Sees whether there is a cluster that has JobSets.

    Raises:
      UsageError: no kubectl, no cluster, or no JobSet controller.
    """
    done = self._run('api-resources', '--api-group=jobset.x-k8s.io', '--output=name')
    if 'jobsets' in done.stdout:
      return
    if done.returncode != 0:
      raise UsageError(
        f'no Kubernetes cluster answers within {_PATIENCE} s: {_last(done.stderr)}; '
        f'see {" ".join(self._command)} config get-contexts'
      )
    raise UsageError(f'the Kubernetes cluster has no JobSets; {_INSTALL}')

  def create(self, manifest: dict[str, Any]) -> str:
    """Creates one thing; gives its uid.

    Raises:
      UsageError: the cluster refuses it, or it is there already.
    """
    output = '--output=jsonpath={.metadata.uid}'
    done = self._run('create', '--filename=-', output, text=as_yaml(manifest))
    if done.returncode == 0:
      return done.stdout.strip()
    kind, name = manifest['kind'], manifest['metadata']['name']
    if 'AlreadyExists' in done.stderr:
      delete = self.words('delete', kind.lower(), name)
      raise UsageError(
        f'there is a {kind} {name!r} already: give this one another by job=..., or '
        f'remove that one: {delete}'
      )
    raise UsageError(f'the cluster refuses {kind} {name!r}: {_last(done.stderr)}')

  def delete(self, kind: str, name: str) -> str:
    """Deletes one thing and waits until it is gone; says what went wrong."""
    waiting = ['--ignore-not-found', f'--timeout={_DELETION}s', '--cascade=foreground']
    try:
      done = self._run('delete', kind, name, *waiting, patience=_DELETION)
    except UsageError as error:
      return str(error)
    return '' if done.returncode == 0 else _last(done.stderr)

  def _run(
    self, verb: str, *arguments: str, text: str = '', patience: float = _PATIENCE
  ) -> subprocess.CompletedProcess[str]:
    limit = [f'--request-timeout={patience:g}s']
    command = [*self._command, verb, *self._namespace, *limit, *arguments]
    try:
      return subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=patience + 5,
      )
    except FileNotFoundError:
      raise UsageError(
        f'there is no {self._command[0]!r} on this machine to reach the cluster with; '
        "install it, or name another: Kubernetes(kubectl=('...',))"
      ) from None
    except subprocess.TimeoutExpired:
      raise UsageError(
        f'no Kubernetes cluster answers {verb!r} within {patience:g} s; see '
        f'{" ".join(self._command)} config get-contexts'
      ) from None


def as_yaml(*manifests: dict[str, Any]) -> str:
  """Manifests as one YAML stream, their fields in the order given.

  Raises:
    UsageError: there is no PyYAML here.
  """
  try:
    import yaml
  except ModuleNotFoundError:
    raise UsageError(
      "manifests are written by PyYAML: pip install 'callsheet[kubernetes]'"
    ) from None
  texts = [yaml.safe_dump(each, sort_keys=False, width=88) for each in manifests]
  return '---\n'.join(texts)


def _last(said: str) -> str:
  lines = [line.strip() for line in said.splitlines() if line.strip()]
  return lines[-1] if lines else 'it says nothing'
