"""Threads of one operator, for what blocks: its event loop goes on meanwhile, and no other operator waits for them.

They keep no process alive: a model that hangs does not keep its worker from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from sage.daemon_threads import DaemonThreads

P = ParamSpec("P")
R = TypeVar("R")


class Threads:
    """As many as calls may be in flight; each is started when it is first needed.

    Args:
        name: of the step, for whoever looks at a process's threads.
        size: calls in flight at most.
    """

    def __init__(self, name: str, size: int) -> None:
        self._pool = DaemonThreads(max(size, 1), f"sage-{name}")

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result. Spans that are made in the thread know their parent."""
        context = contextvars.copy_context()
        call = partial(context.run, partial(function, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        """Start nothing more; what is at work goes on to its end."""
        self._pool.shutdown(cancel_futures=True)
