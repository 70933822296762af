"""A table as it was at one moment, but for its columns, which `Storage` has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from callsheet.nodes.native_storage import Chunks


class Snapshot(NamedTuple):
  """What is written down of a table besides its columns.

  Attributes:
    arrays: what there is for each item, the oldest item's first.
    counters: of the table.
    chunks: by storage.
  """

  arrays: Mapping[str, NDArray[np.generic]]
  counters: Mapping[str, float]
  chunks: Mapping[str, Chunks]
