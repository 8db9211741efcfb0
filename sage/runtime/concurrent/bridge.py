"""Between an actor's consumer thread and the event loop that its asynchronous work lives on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from sage.daemon_threads import DaemonThreads

R = TypeVar("R")

CALLS_IN_THREADS = 32
"""What ``asyncio.to_thread`` runs at once, in the code of all steps and in SAGE's own."""


class Bridge(Protocol):
    """How synchronous code reaches the loop."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop."""
        ...

    def call(self, work: Coroutine[Any, Any, R]) -> R:
        """Run to its end on the loop and give its result."""
        ...

    def soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have the loop call this, after everything asked before."""
        ...


class LoopThread:
    """An event loop in a thread of its own: all asynchronous work of this process."""

    def __init__(self, name: str = "sage-loop") -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(DaemonThreads(CALLS_IN_THREADS, f"{name}-call"))
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop."""
        return self._loop

    def call(self, work: Coroutine[Any, Any, R]) -> R:
        """Run to its end on the loop and give its result; from any thread but the loop's own.

        Raises:
            RuntimeError: the loop is closed.
        """
        try:
            promised = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()  # nobody will ever run it
            raise
        return promised.result()

    def soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have the loop call this, after everything asked before."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        """Cancel what is left and end the thread."""
        if self._loop.is_closed():
            return
        self.call(_cancel_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_rest() -> None:
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
