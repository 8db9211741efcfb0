"""Threads that keep no process alive.

The standard library's pool waits at the interpreter's end for every call that is still at work: one that hangs keeps
its process from ending, whatever its exit code was to be. That goes for ``asyncio.to_thread`` in a step's code too.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Work = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads(ThreadPoolExecutor):
    """Runs calls in up to ``most`` daemon threads, which are made as they are needed.

    A pool of the standard library by name only, since event loops take no other for their own.

    Args:
        most: threads at the same time.
        name: what their names begin with.
    """

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, name)
        self._most = most
        self._name = name
        self._waiting: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._made = 0
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have it called. Raises RuntimeError after ``shutdown``."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self._name}: no calls after shutdown")
            self._waiting.put((future, lambda: fn(*args, **kwargs)))
            if self._idle:
                self._idle -= 1  # one of those takes it
            elif self._made < self._most:
                threading.Thread(target=self._run, name=f"{self._name}_{self._made}", daemon=True).start()
                self._made += 1
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; ``cancel_futures`` drops those that no thread has begun. It never waits."""
        del wait
        with self._lock:
            self._closed = True
            if cancel_futures:
                self._drop()
            for _ in range(self._made):
                self._waiting.put(None)

    def _drop(self) -> None:
        while True:
            try:
                work = self._waiting.get_nowait()
            except queue.Empty:
                return
            if work is not None:
                work[0].cancel()

    def _run(self) -> None:
        while (work := self._waiting.get()) is not None:
            self._call(*work)
            del work  # or what it holds lives until the next one

    def _call(self, future: Future[Any], function: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            self._rest()
            return
        try:
            result = function()
        except BaseException as error:  # its caller is told, whatever it was
            self._rest()
            future.set_exception(error)
        else:
            self._rest()
            future.set_result(result)

    def _rest(self) -> None:
        """This thread takes the next call: before its caller hears of this one, who may have another at once."""
        with self._lock:
            self._idle += self._waiting.empty()
