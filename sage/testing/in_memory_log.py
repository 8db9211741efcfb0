"""One partition of the in-memory broker: offsets, transactions, markers and the last stable offset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from sage.model.record import Headers


class InMemoryMessage:
    """A consumed record; what confluent-kafka's ``Message`` is to the runtime."""

    __slots__ = ("_headers", "_key", "_offset", "_partition", "_timestamp", "_topic", "_value")

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        key: bytes | None = None,
        value: bytes | None = None,
        headers: Headers | None = None,
        timestamp: int = 0,
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._offset = offset
        self._key = key
        self._value = value
        self._headers = list(headers) if headers else None
        self._timestamp = timestamp

    def topic(self) -> str:
        """The topic it was read from."""
        return self._topic

    def partition(self) -> int:
        """The partition it was read from."""
        return self._partition

    def offset(self) -> int:
        """Its place in the partition."""
        return self._offset

    def key(self) -> bytes | None:
        """The key's bytes; ``None`` is no key."""
        return self._key

    def value(self) -> bytes | None:
        """The value's bytes; ``None`` is Kafka's null."""
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        """A list of its own on each call, or ``None`` where there are none."""
        return None if self._headers is None else list(self._headers)

    def timestamp(self) -> tuple[int, int]:
        """(1 = the producer's clock, milliseconds since the epoch)."""
        return 1, self._timestamp

    def error(self) -> None:
        """Never an error: those are raised."""

    def __repr__(self) -> str:
        return f"InMemoryMessage({self._topic}-{self._partition}@{self._offset}, {self._key!r}, {self._value!r})"


class Outcome(Enum):
    """What became of a transaction."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction of one producer; shared by the records it wrote."""

    outcome: Outcome = Outcome.OPEN


@dataclass(slots=True)
class PartitionLog:
    """Records and transaction markers, each with an offset. Not locked: the broker's lock is held."""

    topic: str
    partition: int
    start: int = 0
    _entries: list[tuple[InMemoryMessage | None, Transaction | None]] = field(default_factory=list)
    _undecided: dict[Transaction, int] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The offset after the last record or marker."""
        return self.start + len(self._entries)

    @property
    def stable_end(self) -> int:
        """The last stable offset: nothing before it can still be aborted."""
        for transaction in [each for each in self._undecided if each.outcome is not Outcome.OPEN]:
            del self._undecided[transaction]
        return min(self._undecided.values(), default=self.end)

    def append(
        self,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        timestamp: int,
        transaction: Transaction | None = None,
    ) -> int:
        """Add a record; returns its offset."""
        offset = self.end
        message = InMemoryMessage(
            self.topic, self.partition, offset, key=key, value=value, headers=headers, timestamp=timestamp
        )
        self._entries.append((message, transaction))
        if transaction is not None:
            self._undecided.setdefault(transaction, offset)
        return offset

    def append_marker(self) -> None:
        """Add the marker that ends a transaction: an offset without a record."""
        self._entries.append((None, None))

    def trim(self, before: int) -> None:
        """Remove everything before an offset, as ``delete_records`` does."""
        drop = max(0, min(before, self.end) - self.start)
        del self._entries[:drop]
        self.start += drop

    def at_time(self, timestamp_ms: int) -> int | None:
        """The first record at or after that time."""
        for number, (message, _) in enumerate(self._entries):
            if message is not None and message.timestamp()[1] >= timestamp_ms:
                return self.start + number
        return None

    def read(self, position: int) -> Iterator[tuple[int, InMemoryMessage | None]]:
        """(next position, record or ``None``) from ``position`` to the last stable offset, aborted records hidden."""
        for offset in range(max(position, self.start), self.stable_end):
            message, transaction = self._entries[offset - self.start]
            hidden = transaction is not None and transaction.outcome is Outcome.ABORTED
            yield offset + 1, None if hidden else message

    def messages(self) -> list[InMemoryMessage]:
        """All records that a reader of committed data may see."""
        return [message for _, message in self.read(self.start) if message is not None]
