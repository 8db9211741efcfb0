"""Telemetry never stops a record: what goes wrong in it is logged once in a while, and that is all."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")

LOG_INTERVAL = 60.0
"""Seconds between two reports of trouble."""

_log = logging.getLogger("sage.tracing")


class Reports:
    """Says the first trouble at once, and later ones at most once in ``interval`` seconds, with their number."""

    def __init__(self, interval: float = LOG_INTERVAL, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._next = float("-inf")
        self._held_back = 0

    def say(self, message: str, count: int = 1) -> None:
        """Log ``message``, or count it."""
        now = self._clock()
        if now < self._next:
            self._held_back += count
            return
        more = f" ({self._held_back} more since the last report)" if self._held_back else ""
        self._held_back = 0
        self._next = now + self._interval
        _log.warning("%s%s", message, more)


_trouble = Reports()


def report(error: Exception) -> None:
    """Say that telemetry failed, without filling the log."""
    _trouble.say(f"telemetry failed and was left out; records go on: {type(error).__name__}: {error}")


def quietly(method: Callable[P, None]) -> Callable[P, None]:
    """``method`` with exceptions reported instead of raised."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception as error:
            report(error)

    return wrapped
