"""How far a synchronous stage has come in each partition: run, settled, and to be read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sage.model.partition import TopicPartition
from sage.ports import RawMessage


class Positions:
    """One offset per partition and batch, instead of one object per record.

    Attributes:
        next: the offset after the last record that was run.
        rewinds: partitions to be read again, and from where; their records are passed over until the seek.
    """

    def __init__(self) -> None:
        self.next: dict[TopicPartition, int] = {}
        self.rewinds: dict[TopicPartition, int] = {}
        self._settled: dict[TopicPartition, int] = {}
        self._careful_until: dict[TopicPartition, int] = {}

    def start(self, partition: TopicPartition, committed: int | None) -> None:
        """The partition is ours, read from its committed offset, or from its first record."""
        if committed is not None:
            self._settled[partition] = committed

    def forget(self, partition: TopicPartition) -> None:
        """The partition went."""
        for kept in (self.next, self._settled, self._careful_until, self.rewinds):
            kept.pop(partition, None)

    def advance(self, reached: Mapping[TopicPartition, int], messages: Sequence[RawMessage]) -> None:
        """``messages`` were run, up to the offsets ``reached``: one note per batch and partition."""
        for partition, offset in reached.items():
            if partition not in self._settled:
                first = next(m.offset() for m in messages if (m.topic(), m.partition()) == partition)
                self._settled[partition] = first
            self.next[partition] = offset + 1

    def passed(self, partition: TopicPartition, offset: int) -> None:
        """The record at ``offset`` was run, parked or given up."""
        self._settled.setdefault(partition, offset)
        self.next[partition] = offset + 1
        self._end_care(partition)

    def reached_end(self, partition: TopicPartition, end: int) -> None:
        """The log ends here for now: markers and gaps before it need no work."""
        if end > self.next.get(partition, -1):
            self.next[partition] = end
        self._end_care(partition)

    @property
    def moved(self) -> bool:
        """Whether anything was run that is not settled."""
        return any(self._settled.get(partition) != offset for partition, offset in self.next.items())

    @property
    def careful(self) -> bool:
        """Whether some partition is read again because an output was refused."""
        return bool(self._careful_until)

    def dropped(self, messages: Sequence[RawMessage]) -> None:
        """These were polled and will not be run, as the transaction is lost: ``go_back`` must read them again.

        Their offsets count as run until then; nothing is committed in between.
        """
        for message in messages:
            partition = TopicPartition(message.topic(), message.partition())
            self._settled.setdefault(partition, message.offset())
            self.next[partition] = max(self.next.get(partition, 0), message.offset() + 1)

    def settle(self, offsets: Mapping[TopicPartition, int]) -> None:
        """All before these offsets is safe."""
        self._settled.update(offsets)

    def go_back(self, *, careful: bool) -> dict[TopicPartition, int]:
        """Read again what is not settled; ``careful``: one record at a time, up to where we were."""
        for partition, following in list(self.next.items()):
            settled = self._settled.get(partition, following)
            if settled < following:
                if careful:
                    self._careful_until[partition] = max(following, self._careful_until.get(partition, 0))
                self.rewinds[partition] = self.next[partition] = settled
        return dict(self.rewinds)

    def go_back_to(self, partition: TopicPartition, offset: int) -> None:
        """Read one partition again from ``offset``."""
        self.rewinds[partition] = self.next[partition] = offset

    def _end_care(self, partition: TopicPartition) -> None:
        if self._careful_until and self.next[partition] >= self._careful_until.get(partition, 0):
            self._careful_until.pop(partition, None)
