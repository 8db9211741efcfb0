"""Who lives, and what each worker says: the status topic, read to its end and followed.

Ages are told by the broker's time of heartbeats alone. The clock of the view goes on with the records that come in, by
``LARGEST_STEP`` at most: while the brokers are away nobody can write, and nobody must look dead when they are back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sage.cluster.names import ControlTopics
from sage.cluster.status import BEAT_EVERY, DEAD_AFTER, TopologyStatus, WorkerStatus
from sage.errors import InvalidTopology, NotFound, Unreachable
from sage.model.partition import TopicPartition
from sage.ports import KafkaClients, RawMessage

logger = logging.getLogger("sage.cluster")

LARGEST_STEP: Final = 3_000
"""Milliseconds of broker time between two records that count: longer than a beat, shorter than a death."""

PATIENCE: Final = BEAT_EVERY + 1.0
"""Seconds in which a worker that lives is heard of."""

_BATCH: Final = 1_000
_EARLIEST: Final = -2


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker that has been heard of.

    Attributes:
        status: its last heartbeat.
        topologies: its word on each topology; void where it is dead.
        age: seconds of broker time since that heartbeat.
    """

    status: WorkerStatus
    topologies: Mapping[str, TopologyStatus]
    age: float

    @property
    def is_live(self) -> bool:
        """Whether it counts as alive."""
        return self.age <= DEAD_AFTER


@dataclass(slots=True)
class _Seen:
    status: WorkerStatus | None = None
    beat_at: int = 0
    topologies: dict[str, TopologyStatus] = field(default_factory=dict)


class ClusterView:
    """A reader of the status topic. One thread calls it.

    Args:
        heard: told of every word on a topology, in their order.

    Attributes:
        foreign: key -> why the record was not understood.

    Raises:
        NotFound: the topic does not exist.
        Unreachable, Unauthorized: the brokers.
    """

    def __init__(
        self, clients: KafkaClients, topics: ControlTopics, heard: Callable[[TopologyStatus], None] | None = None
    ) -> None:
        self._heard = heard
        self._address = clients.address
        self._partition = TopicPartition(topics.status, 0)
        self.foreign: dict[str, str] = {}
        self._seen: dict[str, _Seen] = {}
        self._moved: dict[str, int] = {}
        self._now = 0
        self._newest = 0
        self._position = 0
        self._is_loaded = False
        self._admin = clients.admin()
        self._consumer = clients.consumer(None)
        try:
            if not self._admin.describe([topics.status]):
                raise NotFound(f"topic {topics.status} does not exist on {clients.address}: no worker has run here")
            self._consumer.assign({self._partition: _EARLIEST})
        except BaseException:
            self.close()
            raise

    # ----------------------------------------------------------------------------------------- reading

    def read_to_end(self, timeout: float = 30.0) -> None:
        """Read all that is there now. Raises Unreachable where that takes longer than ``timeout`` seconds."""
        (end,) = self._admin.end_offsets([self._partition]).values()
        deadline = time.monotonic() + timeout
        while self._position < end:
            self.poll(0.1)
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"{self._partition.topic}: read to {self._position} of {end} within {timeout:.0f} s, no further",
                    where=self._address,
                )
        self._is_loaded = True

    def read_fresh(self, timeout: float = 30.0) -> None:
        """Read to the end, and be sure who lives now: where the last word is old, wait whether somebody speaks.

        For readers that come and go. This machine's clock only decides whether to wait.

        Raises:
            Unreachable: the end was not reached within ``timeout`` seconds.
        """
        self.read_to_end(timeout)
        if time.time() * 1000 - self._newest < BEAT_EVERY * 1000 and self._newest < time.time() * 1000 + 1_000:
            return
        deadline = time.monotonic() + PATIENCE
        heard = self._newest
        while time.monotonic() < deadline:
            self.poll(0.2)
        if self._newest == heard:  # nobody spoke for longer than anybody who lives is silent
            self._now += int(DEAD_AFTER * 1000) + 1

    def poll(self, timeout: float) -> frozenset[str]:
        """Read on; waits up to ``timeout`` seconds for the first record. The workers of whom there is a new word."""
        changed: set[str] = set()
        for message in self._consumer.poll(_BATCH, timeout):
            changed.add(self._take(message))
            self._position = message.offset() + 1
        self._position = max(self._position, self._consumer.ends_reached().get(self._partition, 0))
        return frozenset(changed)

    def _take(self, message: RawMessage) -> str:
        self._advance(message.timestamp()[1])
        key, value = (message.key() or b"").decode(errors="replace"), message.value()
        worker, slash, topology = key.partition("/")
        self.foreign.pop(key, None)
        seen = self._seen.setdefault(worker, _Seen())
        try:
            if value is None:
                self._forget(worker, topology if slash else "")
            elif slash:
                word = seen.topologies[topology] = TopologyStatus.decode(value)
                self._note_move(topology, self._now - int(word.settled * 1000))
                if self._heard is not None:
                    self._heard(word)
            else:
                seen.status = WorkerStatus.decode(value)
                seen.beat_at = self._now
        except (InvalidTopology, TypeError, ValueError, KeyError, AttributeError) as error:
            self.foreign[key] = str(error)
            logger.warning("%s@%d (%s): passed over: %s", self._partition, message.offset(), key, error)
        return worker

    def _forget(self, worker: str, topology: str) -> None:
        if topology:
            self._seen[worker].topologies.pop(topology, None)
            self._note_move(topology, self._now)
        else:
            self._seen.pop(worker)

    def _note_move(self, topology: str, at: int) -> None:
        self._moved[topology] = max(at, self._moved.get(topology, 0))

    def _advance(self, written: int) -> None:
        step = max(0, written - self._newest)
        self._newest += step
        # What was there before is taken as it stands: compaction has made gaps of silence into it.
        self._now += min(step, LARGEST_STEP) if self._is_loaded else step

    # ----------------------------------------------------------------------------------------- looking

    @property
    def workers(self) -> dict[str, SeenWorker]:
        """All workers that have been heard of and have not said goodbye, by name; the dead ones too."""
        return {
            name: SeenWorker(seen.status, dict(seen.topologies), (self._now - seen.beat_at) / 1000)
            for name, seen in sorted(self._seen.items())
            if seen.status is not None
        }

    @property
    def live(self) -> dict[str, SeenWorker]:
        """Those that live, by name."""
        return {name: worker for name, worker in self.workers.items() if worker.is_live}

    def settled(self, topology: str) -> float:
        """Seconds of broker time for which every worker has had the same stages and partitions of a topology: none has
        taken on, given up, left or died since."""
        live = self.live
        died = [one.beat_at for name, one in self._seen.items() if topology in one.topologies and name not in live]
        return (self._now - max([self._moved.get(topology, 0), *died])) / 1000

    def close(self) -> None:
        """Release the reader. Twice is fine."""
        self._consumer.close()
        self._admin.close()
