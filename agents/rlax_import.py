"""rlax without TensorFlow.

rlax imports distrax, and distrax the JAX half of TensorFlow Probability. Its front door
loads TensorFlow where it is installed (seconds, 300 MB), and refuses the 2.8 that
dm-reverb 0.7.2 needs if it is loaded already. The JAX half needs neither.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from callsheet.imports import one_at_a_time

_FRONT_DOORS = ('tensorflow_probability', 'tensorflow_probability.python')


class _NoTensorFlow(importlib.abc.MetaPathFinder):
  """In one thread, TensorFlow is not installed."""

  def __init__(self) -> None:
    self._thread = threading.get_ident()

  def find_spec(
    self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
  ) -> ModuleSpec | None:
    if name == 'tensorflow' and threading.get_ident() == self._thread:
      raise ImportError('kept out while rlax is imported')
    return None


def import_rlax() -> Any:
  """The module; call it where a loss is traced, for an actor never needs it.

  Raises:
    ImportError: it is not installed.
  """
  with one_at_a_time:
    if 'rlax' in sys.modules:
      return sys.modules['rlax']
    for name in _FRONT_DOORS:
      if name not in sys.modules and (spec := importlib.util.find_spec(name)):
        # A package that was found but not run: what is below it can be imported.
        sys.modules[name] = importlib.util.module_from_spec(spec)
    keep_out = _NoTensorFlow()
    sys.meta_path.insert(0, keep_out)
    try:
      return importlib.import_module('rlax')
    finally:
      sys.meta_path.remove(keep_out)


def import_distrax() -> Any:
  """The module, which comes with rlax; call it where a loss is traced.

  Raises:
    ImportError: it is not installed.
  """
  import_rlax()
  return importlib.import_module('distrax')
