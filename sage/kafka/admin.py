"""The Admin port over librdkafka: topics and offsets, with answers that say what is wrong."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, Final, TypeVar

import confluent_kafka
from confluent_kafka import OFFSET_INVALID, IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec  # type: ignore[attr-defined] # not in __all__

from sage.errors import Conflict, DeadlineExceeded, NotFound, SageError, Unreachable
from sage.kafka.config import masked
from sage.kafka.consumer import commits_of
from sage.kafka.errors import Access, kafka_error, poll_failure, sage_error, unreachable
from sage.kafka.logs import client_logger
from sage.kafka.probe import ProbeFailed, probe
from sage.kafka.rights import group_rights, may_use_transactions, topic_rights
from sage.model.partition import TopicPartition
from sage.ports import Commit, GroupMember, Operation, Resource, TopicInfo, TopicSpec

T = TypeVar("T")

_HEARSAY: Final = 1.5
"""Seconds that a broker of several may not have heard of a new topic."""

_PATIENCE: Final = 9.0
"""Seconds until a broker that does not answer is reported; one more goes into finding out why."""

_MOST_OF_ONE_TRY: Final = 4.5
"""Seconds of it that one try uses up at most: a process that was stopped for longer asks once more at least."""

_REQUEST_TIMEOUT: Final = 3.0
_PAUSE: Final = 0.1
_VISIBLE_TIMEOUT: Final = 30.0
_NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"
"""The topic id of a broker that has none: sixteen zero bytes."""

_LATEST: Final[Any] = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_EARLIEST: Final[Any] = OffsetSpec.earliest()  # type: ignore[no-untyped-call]

# Answers that the next second may change: a leader is being elected, a connection was cut.
_AGAIN: Final = frozenset(
    {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._NOENT,
     KafkaError._WAIT_CACHE, KafkaError._RESOLVE, KafkaError.NOT_CONTROLLER, KafkaError.LEADER_NOT_AVAILABLE,
     KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.COORDINATOR_NOT_AVAILABLE,
     KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR, KafkaError.REQUEST_TIMED_OUT,
     KafkaError.OFFSET_NOT_AVAILABLE, KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH}
)  # fmt: skip


_UNHEARD_OF: Final = frozenset({KafkaError._NOENT, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION})
"""What a partition that does not exist gives, and one that is new as well."""

_OTHER_LEADER: Final = frozenset(
    {KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.FENCED_LEADER_EPOCH,
     KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError._TRANSPORT}
)  # fmt: skip
"""What a client gives that asks a broker which does not lead that partition, or not any more."""


class ConfluentAdmin:
    """Topics and offsets of one cluster; may be called from several threads.

    Args:
        config: librdkafka's settings of the connection.
        reader_config: gives the settings of a consumer of that group, for ``committed``.
        address: the brokers, for messages.
        origin: where the address came from, for messages.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        reader_config: Callable[[str], Mapping[str, Any]],
        address: str,
        origin: str = "",
    ) -> None:
        self._config = dict(config)
        self._reader_config = reader_config
        self._address = address
        self._origin = origin
        self._refused: SageError | None = None
        self._readers: dict[tuple[str, str], confluent_kafka.Consumer] = {}
        self._lock = threading.Lock()
        self._open_client: AdminClient | None = AdminClient(
            {**config, "error_cb": self._on_error},  # type: ignore[dict-item] # the stub forgets callbacks
            logger=client_logger("admin"),
        )

    def __repr__(self) -> str:
        return f"ConfluentAdmin({masked(self._config)})"

    # ------------------------------------------------------------------------------------------ topics

    def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """Those of ``topics`` that exist."""
        return {name: info for name, (info, is_internal) in self._describe(topics).items()}

    def list_topics(self) -> list[TopicInfo]:
        """All topics but the broker's internal ones, by name."""
        metadata = self._patiently("list topics", lambda: self._client.list_topics(timeout=_REQUEST_TIMEOUT))
        found = self._describe(sorted(metadata.topics))
        return [info for info, is_internal in found.values() if not is_internal]

    def create(self, topics: Sequence[TopicSpec]) -> list[str]:
        """Make the missing ones; returns when each has a leader on every partition.

        Raises:
            InvalidTopology: the broker refuses a name, a setting, or that many replicas.
            DeadlineExceeded: a topic was made and its leaders did not show up.
        """
        existing = self.describe([topic.name for topic in topics])
        missing = [topic for topic in topics if topic.name not in existing]
        made = [topic.name for topic in missing if self._create(topic)]
        self._wait_for_leaders({topic.name: topic.partitions for topic in missing})
        return made

    def delete(self, topics: Sequence[str]) -> None:
        """Remove topics and wait until they are gone.

        Raises:
            NotFound: one of them does not exist; the others are deleted.
        """
        if not topics:
            return
        missing: SageError | None = None
        for name, future in self._client.delete_topics(list(topics), request_timeout=_PATIENCE).items():
            try:
                future.result()
            except KafkaException as exception:
                failure = self._failure(f"delete topic {name}", exception, access=Access("Delete", topic=name))
                if not isinstance(failure, NotFound):
                    raise failure from exception
                missing = failure
        self._wait(lambda: not self._describe(topics), f"{', '.join(topics)}: still there after the deletion")
        if missing is not None:
            raise missing

    def widen(self, topic: str, partitions: int) -> None:
        """Give a topic that many partitions; returns when each has a leader.

        Raises:
            NotFound: it does not exist.
            DeadlineExceeded: the leaders did not show up.
        """

        def ask() -> None:
            (future,) = self._client.create_partitions(
                [NewPartitions(topic, partitions)], request_timeout=_PATIENCE
            ).values()
            try:
                future.result()
            except KafkaException as exception:
                if kafka_error(exception).code() != KafkaError.INVALID_PARTITIONS:  # it has as many, or more
                    raise

        self._patiently(f"add partitions to {topic}", ask, Access("Alter", topic=topic))
        self._wait_for_leaders({topic: partitions})

    # ----------------------------------------------------------------------------------------- offsets

    def end_offsets(self, partitions: Sequence[TopicPartition], *, committed: bool = True) -> dict[TopicPartition, int]:
        """The last stable offset of each partition, or its high watermark."""
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        return self._offsets("end offsets", partitions, _LATEST, level)

    def start_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset of the first record that is still there."""
        return self._offsets("start offsets", partitions, _EARLIEST, IsolationLevel.READ_UNCOMMITTED)

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int | None]:
        """A group's committed offsets, without joining it."""
        return {at: commit.offset for at, commit in self._commits("committed offsets", group, partitions).items()}

    def commits(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Commit]:
        """The last committed offsets with their texts; an open transaction does not hold the answer up."""
        return self._commits("commits", group, partitions, "read_uncommitted")

    def members(self, group: str) -> list[GroupMember]:
        """The group's members now; none of a group that does not exist."""

        def ask() -> list[GroupMember]:
            (future,) = self._client.describe_consumer_groups([group], request_timeout=_REQUEST_TIMEOUT).values()
            found = []
            for member in future.result().members:
                given = member.assignment.topic_partitions if member.assignment is not None else []
                partitions = frozenset(TopicPartition(at.topic, at.partition) for at in given)
                found.append(GroupMember(member.member_id, member.client_id, partitions))
            return found

        try:
            return self._patiently(f"members of {group}", ask, Access(group=group))
        except NotFound:
            return []

    def offsets_for_time(
        self, partitions: Sequence[TopicPartition], timestamp_ms: int
    ) -> dict[TopicPartition, int | None]:
        """The first offset at or after that time; ``None`` where all records are older."""
        spec: OffsetSpec = OffsetSpec.for_timestamp(timestamp_ms)
        found = self._offsets("offsets by time", partitions, spec, IsolationLevel.READ_UNCOMMITTED)
        return {where: None if offset < 0 else offset for where, offset in found.items()}

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Have the broker drop everything before these offsets."""
        if not before:
            return
        request = [confluent_kafka.TopicPartition(at.topic, at.partition, offset) for at, offset in before.items()]

        def ask() -> None:
            for future in self._client.delete_records(request, request_timeout=_PATIENCE).values():
                future.result()

        self._of_leaders("delete records", ask, before.keys(), Access("Delete", topic=_topics(before)))

    def list_groups(self) -> list[str]:
        """Names of all groups."""

        def ask() -> list[str]:
            answer = self._client.list_consumer_groups(request_timeout=_REQUEST_TIMEOUT).result()
            # Each broker lists the groups that it coordinates: without one of them some are missing.
            for error in answer.errors:
                if answer.valid:  # the others answer: from them the client learns who is gone, and is not asked again
                    self._client.list_topics(timeout=_REQUEST_TIMEOUT)
                raise KafkaException(error)
            return sorted(group.group_id for group in answer.valid)

        return self._patiently("list groups", ask)

    def delete_groups(self, groups: Sequence[str]) -> None:
        """Forget groups and their offsets; those that don't exist are passed over.

        Raises:
            Conflict: a group has members.
        """

        def ask(group: str) -> None:
            (future,) = self._client.delete_consumer_groups([group], request_timeout=_PATIENCE).values()
            try:
                future.result()
            except KafkaException as exception:
                code = kafka_error(exception).code()
                if code == KafkaError.NON_EMPTY_GROUP:
                    raise Conflict(f"group {group} has members; it is not deleted") from exception
                if code != KafkaError.GROUP_ID_NOT_FOUND:
                    raise

        for group in groups:
            self._patiently(f"delete group {group}", partial(ask, group), Access(group=group))

    def allowed(self, kind: Resource, name: str) -> Mapping[Operation, bool]:
        """What this account may do there, as far as the brokers tell."""
        if kind == "transactional-id":
            return self._patiently(f"rights on {name}", partial(may_use_transactions, self._config, name))
        ask = topic_rights if kind == "topic" else group_rights
        return self._patiently(f"rights on {kind} {name}", partial(ask, self._client, name, _REQUEST_TIMEOUT))

    def close(self) -> None:
        """Release the readers and the client, which ends with its last reference. Twice is fine."""
        with self._lock:
            readers, self._readers = self._readers, {}
            # It holds us by its callback: only the collector would end it, and its five threads with it.
            self._open_client = None
        for reader in readers.values():
            reader.close()

    # ---------------------------------------------------------------------------------------- internals

    @property
    def _client(self) -> AdminClient:
        client = self._open_client
        if client is None:
            raise Unreachable(f"the connection to {self._address} is closed")
        return client

    def _describe(self, topics: Sequence[str]) -> dict[str, tuple[TopicInfo, bool]]:
        if not topics:
            return {}
        found: dict[str, tuple[TopicInfo, bool]] = {}

        def ask() -> None:
            collection = TopicCollection(list(dict.fromkeys(topics)))  # the client refuses a name that comes twice
            for name, future in self._client.describe_topics(collection, request_timeout=_REQUEST_TIMEOUT).items():
                try:
                    answer = future.result()
                except KafkaException as exception:
                    if kafka_error(exception).code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION}:
                        continue
                    raise
                replicas = len(answer.partitions[0].replicas) if answer.partitions else 0
                identity = str(answer.topic_id)
                info = TopicInfo(
                    name=name,
                    topic_id=_stand_in(name) if identity == _NO_ID else identity,
                    partitions=len(answer.partitions),
                    replication_factor=replicas,
                )
                found[name] = (info, bool(answer.is_internal))

        self._patiently("describe topics", ask, Access(topic=", ".join(sorted(set(topics)))))
        return found

    def _create(self, topic: TopicSpec) -> bool:
        request = NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=topic.replication_factor,
            config=dict(topic.config),
        )

        def ask() -> bool:
            (future,) = self._client.create_topics([request], request_timeout=_PATIENCE).values()
            try:
                future.result()
            except KeyboardInterrupt:
                wait([future], _PATIENCE)  # whoever now removes what was made must find it
                raise
            except KafkaException as exception:
                if kafka_error(exception).code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    return False
                raise
            return True

        return self._patiently(f"create topic {topic.name}", ask, Access("Create", topic=topic.name))

    def _wait_for_leaders(self, partitions: Mapping[str, int]) -> None:
        def are_there() -> bool:
            known = self._client.list_topics(timeout=_REQUEST_TIMEOUT).topics
            return all(
                name in known
                and known[name].error is None
                and len(known[name].partitions) >= count
                and all(each.leader >= 0 for each in known[name].partitions.values())
                for name, count in partitions.items()
            )

        if partitions:
            self._wait(are_there, f"{', '.join(partitions)}: made, and no leader yet")

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _VISIBLE_TIMEOUT
        pause = 0.005
        while not self._patiently(what, done):
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"{what}; waited {_VISIBLE_TIMEOUT:.0f} s for {self._address}")
            time.sleep(pause)
            pause = min(2 * pause, 0.25)

    def _offsets(
        self, what: str, partitions: Sequence[TopicPartition], spec: OffsetSpec, level: IsolationLevel
    ) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        request = {confluent_kafka.TopicPartition(where.topic, where.partition): spec for where in partitions}

        def ask() -> dict[TopicPartition, int]:
            answers: dict[Any, Future[Any]] = self._client.list_offsets(
                request, isolation_level=level, request_timeout=_REQUEST_TIMEOUT
            )
            found = {TopicPartition(at.topic, at.partition): future.result().offset for at, future in answers.items()}
            # What librdkafka answers for the partitions of a broker that went away under its question, as if it were
            # one: taken for the end of a log, it would say that there is nothing to read.
            if OFFSET_INVALID in found.values():
                raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
            return found

        return self._of_leaders(what, ask, partitions)

    def _of_leaders(
        self, what: str, ask: Callable[[], T], partitions: Collection[TopicPartition], access: Access | None = None
    ) -> T:
        """Ask what only the leaders of partitions know or do. Raises NotFound where there is no such partition.

        The client goes by what it heard of them minutes ago, also while every answer tells it that this is outdated,
        or that they have not heard of a partition that was added since.
        """

        def ask_or_learn() -> T:
            try:
                return ask()
            except KafkaException as exception:
                code = kafka_error(exception).code()
                # "No leaders found" is also what a missing topic gives: don't wait ten seconds for that.
                if code in _UNHEARD_OF:
                    self._check_exist(what, partitions)
                elif code not in _OTHER_LEADER:
                    raise
                for topic in {where.topic for where in partitions}:
                    self._client.list_topics(topic, timeout=_REQUEST_TIMEOUT)
                raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE)) from exception

        return self._patiently(what, ask_or_learn, access or Access(topic=_topics(partitions)))

    def _check_exist(self, what: str, partitions: Iterable[TopicPartition]) -> None:
        """Raises NotFound; a topic that was made a moment ago may be unknown to the broker that is asked."""
        deadline = time.monotonic() + _HEARSAY
        while True:
            found = self.describe(sorted({where.topic for where in partitions}))
            missing = [
                where
                for where in partitions
                if where.topic not in found or where.partition >= found[where.topic].partitions
            ]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise NotFound(f"{what}: {missing[0]} does not exist on {self._address}")
            time.sleep(0.1)

    def _commits(
        self, what: str, group: str, partitions: Sequence[TopicPartition], isolation: str = "read_committed"
    ) -> dict[TopicPartition, Commit]:
        # Through a consumer: list_consumer_group_offsets can end the process while a broker is down.
        def ask() -> dict[TopicPartition, Commit]:
            try:
                return commits_of(self._reader(group, isolation), partitions, _REQUEST_TIMEOUT)
            except KafkaException:
                # While brokers are away its unanswered questions pile up in it, and cost more by the minute. The next
                # try makes a new one; this one is not closed, as another thread may be asking it, and ends by itself.
                with self._lock:
                    self._readers.pop((group, isolation), None)
                raise

        return self._patiently(f"{what} of {group}", ask, Access(group=group))

    def _reader(self, group: str, isolation: str) -> confluent_kafka.Consumer:
        with self._lock:
            key = (group, isolation)
            if key not in self._readers:
                config = {**self._reader_config(group), "isolation.level": isolation}
                self._readers[key] = confluent_kafka.Consumer(config, logger=client_logger("consumer"))
            return self._readers[key]

    def _patiently(self, what: str, ask: Callable[[], T], access: Access = Access()) -> T:  # noqa: B008
        """Ask until there is an answer that the next second would not change. ``access``: what asking it needs."""
        started, asked = time.monotonic(), 0.0
        while True:
            begun = time.monotonic()
            try:
                return ask()
            except KafkaException as exception:
                self._client.poll(0)  # nothing else serves the error callback, which learns of refused credentials
                asked += min(time.monotonic() - begun, _MOST_OF_ONE_TRY) + _PAUSE
                late = asked >= _PATIENCE
                if kafka_error(exception).code() not in _AGAIN or self._refused or late:
                    raise self._failure(what, exception, started, access) from exception
            time.sleep(_PAUSE)

    def _failure(
        self,
        what: str,
        exception: KafkaException,
        started: float | None = None,
        access: Access = Access(),  # noqa: B008
    ) -> SageError:
        error = kafka_error(exception)
        if self._refused is not None:
            refused, self._refused = self._refused, None
            return refused
        if error.code() in _AGAIN:
            reason = "it answers, and not all that is asked: check security.protocol, and whether all its brokers run"
            try:
                probe(self._address, self._config, timeout=1.0)
            except ProbeFailed as failed:
                reason = str(failed)
            except SageError as refused:
                return refused
            waited = _PATIENCE if started is None else time.monotonic() - started
            return unreachable(self._address, reason, waited, origin=self._origin)
        return sage_error(error, what, address=self._address, access=access)

    def _on_error(self, error: KafkaError) -> None:
        failure = poll_failure(error, "connect", address=self._address)
        if failure is not None:
            self._refused = failure


def _topics(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(sorted({where.topic for where in partitions}))


def _stand_in(name: str) -> str:
    """A stable id for a topic of a broker without topic ids."""
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
