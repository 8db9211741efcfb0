"""Virtual time: a clock that is turned by hand, and an event loop that lives by it, all on one thread."""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, Literal, TypeVar

from sage.model.duration import seconds as in_seconds

R = TypeVar("R")

START_MS = 1_767_225_600_000
"""Where virtual time begins: 2026-01-01 00:00 UTC, in every run."""


class ManualClock:
    """The ``Clock`` port, turned by hand.

    Args:
        start_ms: milliseconds since the epoch at which it begins.
    """

    def __init__(self, start_ms: int = START_MS) -> None:
        self._start_ms = start_ms
        self._passed = 0.0

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._passed

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return self._start_ms + int(self._passed * 1000)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Let ``seconds`` pass at once, unless ``event`` is set; returns whether it is."""
        if not event.is_set():
            self.advance(seconds)
        return event.is_set()

    def advance(self, duration: float | str) -> None:
        """Let a duration pass: seconds, or a text such as ``"2m"``. Raises ValueError for a negative one."""
        self._passed += in_seconds(duration)

    def advance_to(self, moment: float) -> None:
        """Let time pass until ``monotonic()`` is ``moment``; nothing happens where that is past."""
        self._passed = max(self._passed, moment)


class NeverEnds(RuntimeError):  # noqa: N818 - says what is awaited, in one word
    """Something is awaited that nothing in this thread can bring about."""


class _Selector(selectors.BaseSelector):
    """Tells the loop's intention to sleep from work: asked to wait, it lets virtual time pass, or ends the turn."""

    def __init__(self, asked_to_wait: Callable[[float | None], None], worked: Callable[[], None]) -> None:
        self._real = selectors.DefaultSelector()
        self._asked_to_wait = asked_to_wait
        self._worked = worked

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Never blocks: what is ready now, else virtual time is asked what to do."""
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            self._worked()
        else:
            self._asked_to_wait(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As the real one."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """As the real one."""
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As the real one."""
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """As the real one."""
        return self._real.get_map()

    def close(self) -> None:
        """As the real one."""
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a ``ManualClock``'s, and whose threads are none: executors run inline.

    It has two ways to run. ``run_until_idle`` ends as soon as nothing is ready, and says when the next timer
    is due. ``run_until_complete`` lets time pass from timer to timer until its work is done.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._virtual_clock = clock
        self._mode: Literal["idle", "auto"] = "auto"
        self._next_timer: float | None = None
        self._turns = 0
        self._last_time = 0.0
        super().__init__(_Selector(self._on_wait, self._on_work))

    def time(self) -> float:
        """The clock's, and never the same twice.

        asyncio runs a timer only after its moment, by a resolution that is lost in the digits of a clock that has
        run for months: a time that stood still would keep the timer due for ever, and never run it.
        """
        self._last_time = max(self._virtual_clock.monotonic(), math.nextafter(self._last_time, math.inf))
        return self._last_time

    def run_until_idle(self) -> bool:
        """Run what is ready, and what that makes ready; returns whether anything was."""
        self._mode, self._turns = "idle", 0
        try:
            self.run_forever()
        finally:
            self._mode = "auto"
        return self._turns > 0

    @property
    def next_timer(self) -> float | None:
        """When, by the clock, the next timer was due at the end of the last ``run_until_idle``."""
        return self._next_timer

    def run_in_executor(  # type: ignore[override]  # a done future in place of a running one
        self, executor: Executor | None, func: Callable[..., R], *args: Any
    ) -> asyncio.Future[R]:
        """Call ``func`` here and now: the same order in every run."""
        del executor
        future: asyncio.Future[R] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _on_work(self) -> None:
        self._turns += 1

    def _on_wait(self, timeout: float | None) -> None:
        # The clock must move by something, or a timer nearer than a float can say would never come due.
        due = None if timeout is None else max(self.time() + timeout, math.nextafter(self.time(), math.inf))
        if self._mode == "idle":
            self._next_timer = due
            self.stop()
        elif due is None:
            raise NeverEnds("awaited something that neither a timer nor any other work here can bring about")
        else:
            self._virtual_clock.advance_to(due)


class VirtualBridge:
    """The runtime's ``Bridge`` on the driver's own thread."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop."""
        return self._loop

    def call(self, work: Coroutine[Any, Any, R]) -> R:
        """Run to its end, letting as much virtual time pass as that takes."""
        return self._loop.run_until_complete(work)

    def soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have the loop call this in its next turn."""
        self._loop.call_soon(function, *arguments)
