"""Exactly-once on the embedded broker: one worker process per data folder.

That broker's transactions don't fence by group membership, so a second process could commit outputs for partitions
that the first still works on: doubled records, which is just what was asked to be prevented. So there is none.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from sage.errors import FolderInUse, InvalidTopology
from sage.services.lock import folder_lock

LOCK = "exactly-once.lock"

ADVICE = (
    "the embedded broker can't keep exactly_once over several worker processes; run one, or use Apache Kafka "
    "(--bootstrap-servers), or guarantee at_least_once"
)

_held: dict[Path, ExitStack] = {}
_topologies: dict[Path, Counter[str]] = {}
_guard = threading.Lock()


class SingleWorker:
    """This process's right to run a topology exactly-once on the embedded broker of a folder; held until ``release``.

    Several topologies of one process share the right to the folder; the same topology has it once.

    Args:
        data_dir: the folder of the services.
        topology: its name.

    Raises:
        FolderInUse: another process has it (exit code 3).
        InvalidTopology: this process runs the topology already.
    """

    def __init__(self, data_dir: Path, topology: str) -> None:
        self._folder = data_dir.resolve()
        self._topology = topology
        self._is_held = False
        with _guard:
            running = _topologies.setdefault(self._folder, Counter())
            if running[topology]:
                raise InvalidTopology(f"this process runs it exactly_once already; {ADVICE}", where=topology)
            if self._folder not in _held:
                _held[self._folder] = self._locked()
            running[topology] += 1
            self._is_held = True

    def _locked(self) -> ExitStack:
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(folder_lock(self._folder / LOCK, timeout=0.0))
            except FolderInUse as error:
                raise FolderInUse(
                    f"another process runs a topology exactly_once here; {ADVICE}",
                    where=f"{self._topology}: {self._folder}",
                    exit_code=3,
                ) from error
            return stack.pop_all()

    def release(self) -> None:
        """Give the right back; twice is fine."""
        with _guard:
            if not self._is_held:
                return
            self._is_held = False
            running = _topologies[self._folder]
            running[self._topology] -= 1
            if not +running:
                del _topologies[self._folder]
                _held.pop(self._folder).close()
