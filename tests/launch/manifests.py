"""What checks manifests: a strict schema, kubernetes-validate, and our own rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from callsheet.launch.kubernetes.checks import complaints

_VERSION = '1.37'
_SCHEMA = json.loads(Path(__file__).with_name('jobset_schema.json').read_text())


def read(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """The JobSet and the Secret of what `dry_run` gave."""
  jobset, secret = yaml.safe_load_all(text)
  return jobset, secret


def validate(jobset: dict[str, Any]) -> None:
  """Raises where a cluster would refuse it."""
  jsonschema.validate(jobset, _SCHEMA)
  jobs = [
    {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {}, **each['template']}
    for each in jobset['spec']['replicatedJobs']
  ]
  # All at once: each call reads the definitions of all that Kubernetes has.
  listed = {'apiVersion': 'batch/v1', 'kind': 'JobList', 'items': jobs}
  kubernetes_validate.validate(listed, _VERSION, strict=True)
  assert list(complaints(jobset)) == []


def validate_secret(secret: dict[str, Any]) -> None:
  """Likewise."""
  kubernetes_validate.validate(secret, _VERSION, strict=True)
