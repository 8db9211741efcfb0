"""What is seen of a run from outside: high watermarks, processor time, memory, how long records take."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from sage.errors import SageError
from sage.model.partition import TopicPartition
from sage.operations.measuring.figures import Look
from sage.operations.measuring.process_times import cpu_seconds, peak_bytes
from sage.ports import Consumer, KafkaClients, RawMessage

logger = logging.getLogger("sage.operations")

AT_HEADER: Final = "sage.bench.at"
"""When a record was written, in seconds of this process's performance counter, as decimal text."""

LOOK_EVERY: Final = 0.02
_MEMORY_EVERY: Final = 0.25


class Observer:
    """Looks at topics and processes from a thread, for as long as a block lasts.

    Args:
        clients: of the brokers.
        topics: where a record is done that is in one of them; they exist.
        pids: the processes that do the work, now.

    Attributes:
        looks: what was seen, oldest first.
        peaks: the most bytes that each process has held.
    """

    def __init__(self, clients: KafkaClients, topics: Sequence[str], pids: Callable[[], Sequence[int]]) -> None:
        self.looks: list[Look] = []
        self.peaks: dict[int, int] = {}
        self._admin = clients.admin()
        infos = self._admin.describe(topics)
        self._places = [TopicPartition(i.name, number) for i in infos.values() for number in range(i.partitions)]
        self._pids = pids
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sage-bench-observer", daemon=True)

    def _run(self) -> None:
        memory_due = 0.0
        while not self._ended.wait(LOOK_EVERY):
            try:
                self.look()
            except SageError as error:  # brokers that are busy are asked again; the run itself notices those that died
                logger.debug("a look at the topics failed: %s", error)
            if time.monotonic() >= memory_due:
                self._look_at_memory()
                memory_due = time.monotonic() + _MEMORY_EVERY

    def look(self) -> Look:
        """Look now. Raises SageError where the brokers don't answer."""
        done = sum(self._admin.end_offsets(self._places, committed=False).values())
        found = Look(time.monotonic(), done, sum(cpu_seconds(pid) for pid in self._pids()))
        self.looks.append(found)
        return found

    def _look_at_memory(self) -> None:
        for pid in self._pids():
            self.peaks[pid] = max(self.peaks.get(pid, 0), peak_bytes(pid))

    @property
    def done(self) -> int:
        """Records that had come out when it last looked."""
        return self.looks[-1].done if self.looks else 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(10)
        if kind is None:
            self._look_at_memory()
            self.look()
        self._admin.close()


class Arrivals:
    """Reads what comes out, and how long it took since it went in. Called from one thread.

    Args:
        clients: of the brokers.
        topics: where it comes out; they exist.
    """

    def __init__(self, clients: KafkaClients, topics: Sequence[str]) -> None:
        admin = clients.admin()
        infos = admin.describe(topics)
        admin.close()
        self._consumer: Consumer = clients.consumer(None)
        places = [TopicPartition(info.name, number) for info in infos.values() for number in range(info.partitions)]
        self._consumer.assign(dict.fromkeys(places, 0))
        self.after = 0.0
        self.seconds: list[float] = []

    def poll(self, wait: float) -> None:
        """Take what is there; waits ``wait`` seconds for the first."""
        for message in self._consumer.poll(500, wait):
            now = time.perf_counter()
            at = _written(message)
            if at is not None and at >= self.after:
                self.seconds.append(now - at)

    def close(self) -> None:
        """Release the reader."""
        self._consumer.close()


def stamp() -> tuple[str, bytes]:
    """The header of a record that is written now."""
    return AT_HEADER, repr(time.perf_counter()).encode()


def _written(message: RawMessage) -> float | None:
    for name, value in message.headers() or ():
        if name == AT_HEADER and value is not None:
            return float(value)
    return None
