"""What an actor asks of the work it hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from sage.model.partition import TopicPartition
from sage.ports import Commit, DeliveryFailure, RawMessage
from sage.runtime.actors.commit_text import JournalMark
from sage.runtime.actors.holds import Holds
from sage.runtime.steps.binding import BoundStep


class Task(Protocol):
    """A stage's work on the partitions it holds. Every method is called on the actor's consumer thread."""

    steps: Sequence[BoundStep]

    def open(self, holds: Holds) -> None:
        """Open the steps. Raises what they raise. ``holds``: how single partitions are made to wait."""
        ...

    def room(self) -> int:
        """How many records may be handed over now; 0 is backpressure: ``accept`` is then called with none."""
        ...

    def may_resume(self) -> bool:
        """Whether enough room is back after ``room`` was 0, so that pausing is not done record by record."""
        ...

    def assigned(self, partitions: Mapping[TopicPartition, Commit]) -> None:
        """New partitions, with what was committed of them; each starts with an empty tracker."""
        ...

    def accept(self, messages: list[RawMessage]) -> None:
        """Take these records on, in order per partition.

        Raises:
            SageError: the stage must stop.
            TransactionAbortable, Replaced: the open transaction is lost.
        """
        ...

    def tick(self) -> None:
        """Do what is due by time: timers, restoring state, partitions whose wait is over. Raises as ``accept``."""
        ...

    def next_due(self) -> int | None:
        """When ``tick`` will have a timer to fire, in milliseconds since the epoch."""
        ...

    def reached_end(self, ends: Mapping[TopicPartition, int]) -> None:
        """These partitions have nothing more for now; the offsets are where their logs end."""
        ...

    def settled(self) -> dict[TopicPartition, int]:
        """Next offsets to read of which all before may be committed now.

        At least once: the broker has acknowledged all that came of them. Exactly once: all that came of them is
        in the open transaction. Raises as ``accept``.
        """
        ...

    def needed_journal(self, offsets: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, JournalMark]:
        """From where on the journal is needed for records at or after ``offsets``; none where there is no journal."""
        ...

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """What ``settled`` gave last is committed, these offsets with it: state may be kept, room given back."""
        ...

    def aborted(self, failures: Sequence[DeliveryFailure]) -> None:
        """What was made ready since the last commit is thrown away, ``failures`` being why, if any.

        Afterwards ``settled`` makes it ready again, or ``rewinds`` says where to read again. Raises SageError where
        another try can't help.
        """
        ...

    def rewinds(self) -> dict[TopicPartition, int]:
        """Partitions to read again, and from where, because outputs were not taken. The caller seeks."""
        ...

    def rewound(self, partitions: Sequence[TopicPartition]) -> None:
        """The seek is done; records that come now are from there."""
        ...

    def finish(self, partitions: Sequence[TopicPartition], timeout: float) -> None:
        """Finish what these have under way within ``timeout`` seconds, start nothing new of them."""
        ...

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget these at once."""
        ...

    def idle(self) -> bool:
        """Whether nothing is under way."""
        ...

    def at_rest(self) -> bool:
        """Whether all state is restored and no timer is overdue, at work, or done and not committed."""
        ...

    @property
    def restored(self) -> float | None:
        """How much of its state is there, 0 to 1, while it is being restored; else ``None``. Any thread may look."""
        ...

    def drain(self, timeout: float) -> None:
        """Finish what is under way within ``timeout`` seconds; nothing new comes."""
        ...

    def close(self) -> None:
        """Close the steps and the producer."""
        ...
