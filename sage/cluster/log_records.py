"""One line of a worker's log, as the logs topic keeps it, and a reader of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from sage.cluster.deployment import read_fields
from sage.cluster.names import ControlTopics
from sage.errors import InvalidTopology, NotFound
from sage.model.partition import TopicPartition
from sage.ports import KafkaClients, RawMessage

FORMAT: Final = 1

_BATCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A line.

    Attributes:
        time: milliseconds since the epoch, by the worker's clock.
        level: ``info``, ``warning``, ``error`` ...
        worker, topology, step: whose it is; empty where it is nobody's in particular.
        message: with secrets masked.
        trace: the traceback of what was logged with one.
    """

    time: int
    level: str
    worker: str
    topology: str
    step: str
    logger: str
    message: str
    trace: str = ""

    @property
    def key(self) -> bytes:
        """The topology's lines are in one partition, in order."""
        return self.topology.encode()

    def encode(self) -> bytes:
        """As it is written."""
        return orjson.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def decode(cls, data: bytes) -> LogRecord:
        """What ``encode`` wrote. Raises InvalidTopology."""
        fields: dict[str, Any] = read_fields(data, "log record", FORMAT)
        return cls(**fields)


class LogReader:
    """Reads the logs topic, oldest first in each partition.

    Args:
        since: milliseconds since the epoch; 0 is all that is there.

    Raises:
        NotFound: the topic does not exist.
        Unreachable, Unauthorized: the brokers.
    """

    def __init__(self, clients: KafkaClients, topics: ControlTopics, *, since: int = 0) -> None:
        admin = clients.admin()
        try:
            info = admin.describe([topics.logs]).get(topics.logs)
            if info is None:
                raise NotFound(f"topic {topics.logs} does not exist on {clients.address}: no worker has run here")
            places = [TopicPartition(topics.logs, number) for number in range(info.partitions)]
            self._ends = admin.end_offsets(places)
            starts = admin.start_offsets(places)
            if since:
                found = admin.offsets_for_time(places, since)
                starts = {p: self._ends[p] if (at := found[p]) is None else max(at, starts[p]) for p in places}
        finally:
            admin.close()
        self._reached = dict(starts)
        self._consumer = clients.consumer(None)
        self._consumer.assign(starts)

    @property
    def is_at_end(self) -> bool:
        """Whether all that was there when this reader began has been read."""
        return all(self._reached[place] >= end for place, end in self._ends.items())

    def poll(self, timeout: float) -> Iterator[LogRecord]:
        """What comes within ``timeout`` seconds; foreign records are passed over."""
        messages = self._consumer.poll(_BATCH, timeout)
        for place, end in self._consumer.ends_reached().items():
            self._reached[place] = max(self._reached.get(place, 0), end)
        for message in sorted(messages, key=lambda each: each.timestamp()[1]):
            place = TopicPartition(message.topic(), message.partition())
            self._reached[place] = max(self._reached[place], message.offset() + 1)  # clocks may go back
            record = _record(message)
            if record is not None:
                yield record

    def close(self) -> None:
        """Release the reader."""
        self._consumer.close()


def _record(message: RawMessage) -> LogRecord | None:
    try:
        return LogRecord.decode(message.value() or b"")
    except (InvalidTopology, TypeError):
        return None
