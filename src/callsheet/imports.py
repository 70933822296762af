"""Large packages are imported by one thread at a time.

Where nodes are threads, a learner imports rlax and a replay TensorFlow at the same
moment. They share packages, and who meets one that another thread has half imported is
told of a circular import.
"""

from __future__ import annotations

import threading

one_at_a_time = threading.Lock()
"""To be held around the import of a package that takes seconds, and by no import."""
