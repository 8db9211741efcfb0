"""Python's cyclic garbage collector, set for a process that does nothing but process records.

A batch holds some thousands of small objects for a few milliseconds. By Python's defaults the collector looks through
them ten times a batch and finds nothing, and now and then it walks over all modules that are loaded, which holds a
record up for up to a tenth of a second.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 50_000
"""Objects made and not freed until the collector looks at them: more than a batch holds."""

_lock = threading.Lock()
_depth = 0
_thresholds = (0, 0, 0)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Leave what is there now out of all collections, and collect among the rest less often, until the end.

    Nested uses count as one. A collector that is switched off stays off.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _depth, _thresholds  # noqa: PLW0603 - the collector is the process's
    with _lock:
        _depth += 1
        if _depth > 1:
            return
        _thresholds = gc.get_threshold()
        gc.collect()  # what is garbage now would else stay for good
        gc.freeze()
        gc.set_threshold(max(YOUNG, _thresholds[0]) if _thresholds[0] else 0, *_thresholds[1:])


def _leave() -> None:
    global _depth  # noqa: PLW0603 - as above
    with _lock:
        _depth -= 1
        if _depth == 0:
            gc.unfreeze()
            gc.set_threshold(*_thresholds)
