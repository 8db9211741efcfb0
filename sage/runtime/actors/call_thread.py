"""Calls that may never return, made on a thread that can be left behind.

librdkafka's ``send_offsets_to_transaction`` does not keep its time-out while the group's coordinator is away, and may
wait for ever (its issues 5456 and 5511). Nobody can end such a call; but its producer can be given up, which is safe,
because a new one under the same transactional id fences it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")


class Hung(Exception):  # noqa: N818 - an answer to the caller, not an error to a user
    """The call did not return in time; its thread is left behind."""


class CallThread:
    """Makes one call after the other on a daemon thread of its own, which is started when it is first needed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None] | None = None

    def call(self, function: Callable[[], R], seconds: float) -> R:
        """The function's result, or what it raises.

        Raises:
            Hung: it did not return within ``seconds``.
        """
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            threading.Thread(target=_work, args=(self._calls,), name=self._name, daemon=True).start()
        answer: queue.SimpleQueue[tuple[R | None, BaseException | None]] = queue.SimpleQueue()
        self._calls.put((function, answer))
        try:
            result, error = answer.get(timeout=seconds)
        except queue.Empty:
            self.close()
            raise Hung(f"no return within {seconds:.0f} s") from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # what the function gave

    def close(self) -> None:
        """End the thread when its call returns, if it does."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None


def _work(calls: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None]) -> None:
    while (asked := calls.get()) is not None:
        function, answer = asked
        try:
            answer.put((function(), None))
        except BaseException as error:
            answer.put((None, error))
