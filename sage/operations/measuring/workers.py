"""The processes that run what is measured, watched from a thread of the one that measures."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from sage.errors import SageError
from sage.operations.worker_processes import LAST_WAIT, WorkerProcesses

_EXIT_FAILED: Final = 1


class Workers:
    """Worker processes for as long as a block lasts.

    Args:
        arguments: after ``python``.
        count: how many.
        environ: their variables.
        note: told what happens to them.
    """

    def __init__(
        self, arguments: Sequence[str], count: int, environ: Mapping[str, str], note: Callable[[str], None]
    ) -> None:
        # As of a bounded run: one that ended by itself ends the others, and none is started again.
        self._processes = WorkerProcesses(arguments, count, environ=environ, bounded=True, note=note)
        self._thread = threading.Thread(target=self._run, name="sage-bench-workers", daemon=True)
        self._code: int | None = None
        self._count = count
        self._are_started = False

    def _run(self) -> None:
        self._code = self._processes.run()

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return self._processes.pids

    def check(self) -> None:
        """Raise where one has ended: what is measured then is not what was asked for.

        Raises:
            SageError: with the process's own exit code; it has said why.
        """
        living = len(self.pids)
        self._are_started = self._are_started or living == self._count
        if self._thread.is_alive() and not (self._are_started and living < self._count):
            return
        self._end()
        raise SageError(
            "a worker process ended before the run was over; why is said above", exit_code=self._code or _EXIT_FAILED
        )

    def _end(self) -> None:
        self._processes.ask(signal.SIGTERM)
        self._thread.join(LAST_WAIT)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
