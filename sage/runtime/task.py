"""What an actor asks of the work it hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from sage.model.partition import TopicPartition
from sage.ports import RawMessage
from sage.runtime.binding import BoundStep


class Task(Protocol):
    """A stage's work on the partitions it holds. Every method is called on the actor's consumer thread."""

    steps: Sequence[BoundStep]

    def open(self) -> None:
        """Open the steps. Raises what they raise."""
        ...

    def room(self) -> int:
        """How many records may be handed over now; 0 is backpressure: ``accept`` is then called with none."""
        ...

    def may_resume(self) -> bool:
        """Whether enough room is back after ``room`` was 0, so that pausing is not done record by record."""
        ...

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """New partitions; each starts with an empty tracker."""
        ...

    def accept(self, messages: list[RawMessage]) -> None:
        """Take these records on, in order per partition. Raises SageError where the stage must stop."""
        ...

    def reached_end(self, ends: Mapping[TopicPartition, int]) -> None:
        """These partitions have nothing more for now; the offsets are where their logs end."""
        ...

    def settled(self) -> dict[TopicPartition, int]:
        """Next offsets to read of which all before is acknowledged by the broker; never more than that."""
        ...

    def rewinds(self) -> dict[TopicPartition, int]:
        """Partitions to read again, and from where, because outputs were not taken. The caller seeks."""
        ...

    def rewound(self, partitions: Sequence[TopicPartition]) -> None:
        """The seek is done; records that come now are from there."""
        ...

    def revoked(self, partitions: Sequence[TopicPartition], timeout: float) -> dict[TopicPartition, int]:
        """Finish what these have under way within ``timeout`` seconds, give what is settled, forget them."""
        ...

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget these at once."""
        ...

    def idle(self) -> bool:
        """Whether nothing is under way."""
        ...

    def drain(self, timeout: float) -> None:
        """Finish what is under way within ``timeout`` seconds; nothing new comes."""
        ...

    def close(self) -> None:
        """Close the steps and the producer."""
        ...
