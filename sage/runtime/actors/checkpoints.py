"""How an actor's offsets become safe: committed by themselves, or in a transaction with what came of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from sage.errors import TransientFailure, Unreachable
from sage.model.partition import TopicPartition
from sage.ports import CommitRefused, Consumer
from sage.runtime.actors.transaction import Transactions

logger = logging.getLogger("sage.runtime")


class Checkpoints(Protocol):
    """One way to commit. Called on the consumer's thread."""

    interval: float
    """Seconds between checkpoints under load."""

    idle_interval: float
    """Seconds between checkpoints when nothing comes, so that the lag goes to 0 soon after the last record."""

    gap: float
    """Seconds between two commits at least."""

    def before_poll(self) -> None:
        """A poll follows: whatever it finds lost must not be committed by what is known before it."""
        ...

    def own(self) -> None:
        """A callback of the group says that the partitions are ours now."""
        ...

    def commit(self, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str]) -> bool:
        """Commit; false where nothing was committed and the same may be tried again.

        Raises:
            Aborted, Replaced: exactly-once only; see ``Transactions``.
        """
        ...

    def hand_over(self, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str]) -> bool:
        """Commit these offsets again, for the texts beside them; false where that did not happen."""
        ...

    def abort(self) -> bool:
        """Throw away what is not committed; whether there was anything to throw away."""
        ...


class PlainCommits:
    """At least once: the outputs are acknowledged already, so the offsets follow by themselves."""

    interval = 1.0
    idle_interval = 0.05
    gap = 0.0

    def __init__(self, consumer: Consumer, name: str) -> None:
        self._consumer = consumer
        self._name = name

    def before_poll(self) -> None:
        """Ownership is all that counts."""

    def own(self) -> None:
        """Ownership is all that counts."""

    def commit(self, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str]) -> bool:
        """Commit and wait for the answer."""
        try:
            self._consumer.commit(offsets, metadata or None)
        except CommitRefused:
            logger.info("%s: offsets refused, the partitions have a new owner", self._name)
            return False
        except (TransientFailure, Unreachable) as error:
            logger.warning("%s: commit not answered, trying again: %s", self._name, error)
            return False
        return True

    def hand_over(self, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str]) -> bool:
        """Nobody is named beside these offsets."""
        return True

    def abort(self) -> bool:
        """Nothing is ever open."""
        return False


class TransactionalCommits:
    """Exactly once: offsets in the transaction of their outputs, under the identity of before the poll."""

    # Back to back, the broker's end of a transaction takes 90 ms, with a gap of 100 ms between two it takes 5.
    interval = 0.1
    idle_interval = 0.02
    gap = 0.1

    def __init__(self, consumer: Consumer, transactions: Transactions) -> None:
        self._consumer = consumer
        self._transactions = transactions
        self._identity: object | None = None

    def before_poll(self) -> None:
        """Who we are before the poll: a member that was expelled meanwhile is refused under this name."""
        self._identity = self._consumer.group_metadata()

    def own(self) -> None:
        """A callback was served, so what the group says now is what we know."""
        self._identity = self._consumer.group_metadata()

    def commit(self, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str]) -> bool:
        """Commit the open transaction with these offsets."""
        if self._identity is None:
            return False  # no member at the moment: the next poll says what is still ours
        self._transactions.commit(offsets, self._identity, metadata)
        return True

    def hand_over(self, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str]) -> bool:
        """Put our name there, or take it away, so that the next owner need not fence us."""
        try:
            self._consumer.commit(offsets, metadata)
        except (CommitRefused, TransientFailure, Unreachable) as error:
            logger.info("%s: no word beside its offsets: %s", self._transactions.id, error)
            return False
        return True

    def abort(self) -> bool:
        """Abort what is open."""
        was_open = self._transactions.is_open
        self._transactions.abort()
        return was_open
