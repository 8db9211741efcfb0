"""Timers of one key in a step's hands, and the order in which all timers of a partition are due."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sage.errors import StageStopped
from sage.model.duration import seconds


class Due(NamedTuple):
    """A timer whose time, in milliseconds since the epoch, has come."""

    key: bytes
    name: str
    at: int


class KeyTimers:
    """The Timers of one record or timer.

    Args:
        timers: what is set, name to time; changed in place.
        now_ms: the wall clock.
        heard: whether the step has something to call when a timer is due.
    """

    __slots__ = ("_heard", "_now", "_timers", "touched")

    def __init__(self, timers: dict[str, int], now_ms: int, heard: bool) -> None:
        self._timers = timers
        self._now = now_ms
        self._heard = heard
        self.touched = False

    def set(self, name: str = "timer", *, after: float | str | None = None, at: int | None = None) -> None:
        """Be called back ``after`` a duration, or ``at`` a time in milliseconds; replaces one of the same name.

        Raises:
            StageStopped: not exactly one of the two is given, or the step has nothing to call.
        """
        if not self._heard:
            raise StageStopped(
                f"timer {name!r} is set, and nothing is called when it is due; give .process(..., on_timer=function)"
            )
        if (after is None) == (at is None):
            raise StageStopped(f"timer {name!r}: give after= or at=, and only one of them")
        self._timers[name] = int(at) if at is not None else self._now + int(seconds(after or 0) * 1000)
        self.touched = True

    def cancel(self, name: str = "timer") -> None:
        """Forget it; one that is not set is no error."""
        self.touched |= self._timers.pop(name, None) is not None

    @property
    def due(self) -> Mapping[str, int]:
        """Timers that are set: name to time in milliseconds."""
        return dict(self._timers)


class TimerHeap:
    """Says when to look at which timer. Not thread-safe.

    It holds one entry for each timer, however often that one is put off: a timer that was moved to a later time, or
    cancelled, is met at its earlier time and looked up then.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, bytes, str]] = []
        self._armed: dict[tuple[bytes, str], int] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def fill(self, timers: Iterable[Due]) -> None:
        """Start again with these."""
        self._heap = [(at, key, name) for key, name, at in timers]
        self._armed = {(key, name): at for at, key, name in self._heap}
        heapq.heapify(self._heap)

    def arm(self, key: bytes, name: str, at: int) -> None:
        """Look at this timer at ``at``, or before."""
        armed = self._armed.get((key, name))
        if armed is None or at < armed:
            self._armed[key, name] = at
            heapq.heappush(self._heap, (at, key, name))

    def pop(self, now_ms: int) -> Due | None:
        """The next timer to look at, if its time has come; it is armed no more."""
        while self._heap and self._heap[0][0] <= now_ms:
            at, key, name = heapq.heappop(self._heap)
            if self._armed.get((key, name)) == at:
                del self._armed[key, name]
                return Due(key, name, at)
        return None

    @property
    def next(self) -> int | None:
        """When to look next, in milliseconds since the epoch."""
        return self._heap[0][0] if self._heap else None
