"""One guarded write of a topology's records: whoever was first wins, and the other is told (decision 24)."""

from __future__ import annotations

import getpass
import logging
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from sage.cluster.control_log import ControlLog
from sage.cluster.deployment import Deployment
from sage.cluster.desired import Desired
from sage.cluster.names import ControlTopics
from sage.errors import Conflict, InvalidTopology, TransientFailure, Unreachable
from sage.ports import Clock, KafkaClients, Producer, ProducerFatal, TransactionAbortable

logger = logging.getLogger("sage.cluster")

PATIENCE: Final = 30.0
"""Seconds for which a commit without an answer is asked again."""

Record = tuple[bytes, bytes | None]


def who_am_i() -> str:
    """``user@host``, for the records that somebody writes."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


class ControlSession:
    """The right to write what is desired of one topology, until somebody else takes it. A context manager.

    Opening it, in this order: (1) the transactional id ``sage-deploy-<topology>`` is initialised, which fences
    everybody who had it before and ends what they left open; (2) the topic is read to its end. So what ``log`` says is
    what a write builds upon: nobody can have written in between without fencing us in turn.

    Args:
        name: the topology.
        expected: the revision that the change was made for; ``None`` takes whatever is there.
        who: ``user@host``.

    Attributes:
        last: the pointer as this session found it, or tried to write it last.

    Raises:
        Conflict: the pointer has another revision than ``expected``.
        InvalidTopology: a newer SAGE has written it.
        Unreachable, Unauthorized, NotFound: the brokers; the control topics.
    """

    def __init__(
        self,
        clients: KafkaClients,
        topics: ControlTopics,
        name: str,
        *,
        clock: Clock,
        who: str,
        expected: int | None = None,
    ) -> None:
        self.name = name
        self._clients = clients
        self._topics = topics
        self._clock = clock
        self._who = who
        self._producer: Producer = clients.producer(transactional_id=topics.deployer_id(name))
        self._log: ControlLog | None = None
        self._was_aborted = False
        self.last: Desired | None = None
        try:
            self._begin(expected)
        except BaseException:
            self.close()
            raise

    def _begin(self, expected: int | None) -> None:
        try:
            self._producer.init_transactions(PATIENCE)
        except ProducerFatal as error:
            raise Conflict(f"another deployer is at work: {error}; try again", where=self.name) from error
        self._log = ControlLog(self._clients, self._topics)
        self._log.read_to_end()
        if self.name in self._log.newer:  # what is known of it here is older: a write would take the change back
            raise InvalidTopology(self._log.foreign[self.name], where=self.name)
        self.last = self.pointer
        found = 0 if self.pointer is None else self.pointer.revision
        if expected is not None and found != expected:
            raise _lost(self.name, self.pointer)

    @property
    def log(self) -> ControlLog:
        """The control topic as it was when this session began, and what it wrote itself."""
        assert self._log is not None, "it is there from _begin on"
        return self._log

    @property
    def pointer(self) -> Desired | None:
        """What is desired of the topology now."""
        return self.log.pointers.get(self.name)

    # ----------------------------------------------------------------------------------------- writing

    def point(self, desired: Desired, *deployments: Deployment, also: Sequence[Record] = ()) -> Desired:
        """Write deployments and the pointer in one transaction; the pointer as it was written.

        Args:
            desired: what is wanted; its revision, author and time are set here.
            deployments: versions that are new.
            also: other records of this topology, such as the removal of old versions.

        Raises:
            Conflict: somebody else has taken over; nothing was written.
            TransientFailure: the brokers did not take it; nothing was written.
        """
        revision = 1 + (0 if self.pointer is None else self.pointer.revision)
        written = replace(
            desired, name=self.name, revision=revision, changed_by=self._who, changed_at=self._clock.now_ms()
        )
        records = [*((each.key, each.encode()) for each in deployments), (written.key, written.encode()), *also]
        self.last = written
        try:
            self._write(records)
        except ProducerFatal as error:
            self._settle(written, error)
        self._see(lambda: self._has_been(written))
        return written

    def forget(self, records: Sequence[bytes]) -> None:
        """Remove these keys for good. Raises as ``point`` does."""
        try:
            self._write([(key, None) for key in records])
        except ProducerFatal as error:
            self.log.read_to_end()
            raise _lost(self.name, self.pointer) from error
        self._see(lambda: self.pointer is None or self.name.encode() not in records)

    def _see(self, is_there: Callable[[], bool]) -> None:
        """Read until what was committed can be read: the broker answers a commit a moment before readers see it.

        Whoever looks after this process has said that it is done, sees it too.

        Raises:
            Unreachable: it can't be read; it was written all the same.
        """
        deadline = time.monotonic() + PATIENCE
        while not is_there():
            if time.monotonic() > deadline:
                raise Unreachable("it was written, and can't be read back", where=self._topics.topologies)
            self.log.poll(0.05)
        self.log.read_to_end()

    def _write(self, records: Sequence[Record]) -> None:
        producer = self._producer
        if self._was_aborted:
            self._begin_again()
        producer.begin_transaction()
        try:
            for key, value in records:
                producer.produce(self._topics.topologies, value, key, partition=0)
            left = producer.flush(PATIENCE)
            failures = producer.take_failures()
            if left or failures:
                reason = failures[0].reason if failures else f"no answer within {PATIENCE:.0f} s"
                raise TransactionAbortable(reason)
            self._commit()
        except TransactionAbortable as error:
            self._abort()
            raise TransientFailure(
                f"{self._topics.topologies} did not take it: {error}; nothing was written, try again", where=self.name
            ) from error
        except (ProducerFatal, TransientFailure):
            raise
        except BaseException:
            self._abort()
            raise

    def _abort(self) -> None:
        self._was_aborted = True
        self._producer.abort_transaction(PATIENCE)

    def _begin_again(self) -> None:
        """The transaction after an abort is of another epoch, which fences whoever took over meanwhile: only where
        nobody wrote is what we know still what a write builds upon."""
        known = self.pointer
        self._producer.init_transactions(PATIENCE)
        self.log.read_to_end()
        if self.pointer != known:
            raise _lost(self.name, self.pointer)
        self._was_aborted = False

    def _commit(self) -> None:
        """A commit without an answer is asked again, never aborted: it may have happened (decision 6)."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._producer.commit_transaction(PATIENCE)
            except TransientFailure as error:
                if time.monotonic() > deadline:
                    raise
                logger.info("%s: asking again for the commit: %s", self.name, error)
            else:
                return

    def _settle(self, written: Desired, error: ProducerFatal) -> None:
        """After a fatal error: it happened all the same, or somebody else took over. Raises Conflict."""
        self.log.read_to_end()
        if not self._has_been(written):
            raise _lost(self.name, self.pointer) from error

    def _has_been(self, written: Desired) -> bool:
        """Whether it was read back; the next deployer may have gone on from it since."""
        return written in self.log.changes(self.name)

    def close(self) -> None:
        """Release the clients; the right stays ours in name until the next one takes it."""
        if self._log is not None:
            self._log.close()
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lost(name: str, pointer: Desired | None) -> Conflict:
    if pointer is None:
        return Conflict("another deployer took over; nothing was written; try again", where=name)
    return Conflict(
        f"changed meanwhile by {pointer.changed_by or 'somebody'} ({pointer.reason or 'a change'}, now revision "
        f"{pointer.revision}, version {pointer.version}); nothing was written. See `sage topology history {name}`, and "
        "repeat what still fits",
        where=name,
    )
