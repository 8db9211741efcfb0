"""Threads for a step's code that blocks.

A thread that hangs can't be ended. A call whose time is up is given up all the same, and its thread is left to it:
there are as many threads again as calls at work, so that calls that hang don't hold up those that come after them. The
time of a call begins when it has a thread, so that none dies for want of one. They keep no process alive.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sage.daemon_threads import DaemonThreads
from sage.spec.detached import detached

logger = logging.getLogger("sage.runtime")


class StepThreads:
    """The threads of one step.

    Args:
        name: the step's, for the threads' names and for messages.
        concurrency: calls at work at once.
    """

    def __init__(self, name: str, concurrency: int) -> None:
        self._name = name
        self._spare = concurrency
        self._pool = DaemonThreads(2 * concurrency, f"sage-{name}")
        self._given_up = 0
        self._lock = threading.Lock()

    async def call(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], limit: asyncio.Timeout, seconds: float | None
    ) -> Any:
        """The function's result, a generator's as a list.

        Args:
            limit: ends the wait; it is set to ``seconds`` when the call has a thread.
        """
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()  # so that spans made in the thread know their parent
        call = _Call()

        def begin() -> None:
            if seconds is not None:
                with suppress(RuntimeError):  # over already
                    limit.reschedule(loop.time() + seconds)

        def run() -> Any:
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(begin)
            try:
                call.is_running = True
                return context.run(_called, function, arguments)
            finally:
                self._returned(call)

        try:
            return await loop.run_in_executor(self._pool, run)
        except asyncio.CancelledError:
            self._give_up(call)
            raise

    def _give_up(self, call: _Call) -> None:
        with self._lock:
            if not call.is_running:
                return
            call.is_given_up = True
            self._given_up += 1
            held = self._given_up
        if held >= self._spare:
            logger.error(
                'step "%s": %d calls that were given up still hold their threads, and there are no more; its code must '
                "return: give what it waits for a time-out of its own",
                self._name, held,
            )  # fmt: skip

    def _returned(self, call: _Call) -> None:
        with self._lock:
            call.is_running = False
            self._given_up -= call.is_given_up

    def close(self) -> None:
        """Start nothing more; threads at work end with their calls."""
        self._pool.shutdown(cancel_futures=True)


class _Call:
    """What is known of one call on both sides."""

    __slots__ = ("is_given_up", "is_running")

    def __init__(self) -> None:
        self.is_running = False
        self.is_given_up = False


def _called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Run in a thread, generators to their end there."""
    result = function(*arguments)
    return [detached(item) for item in result] if inspect.isgenerator(result) else result
