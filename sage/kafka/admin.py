"""The Admin port over librdkafka: topics and offsets, with answers that say what is wrong."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import confluent_kafka
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined] # not in __all__

from sage.errors import DeadlineExceeded, NotFound, SageError
from sage.kafka.config import masked
from sage.kafka.consumer import committed_offsets
from sage.kafka.errors import kafka_error, poll_failure, sage_error, unreachable
from sage.kafka.logs import client_logger
from sage.kafka.probe import ProbeFailed, probe
from sage.model.partition import TopicPartition
from sage.ports import TopicInfo, TopicSpec

T = TypeVar("T")

_PATIENCE: Final = 9.0
"""Seconds until a broker that does not answer is reported; one more goes into finding out why."""

_REQUEST_TIMEOUT: Final = 3.0
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
     KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR, KafkaError.REQUEST_TIMED_OUT}
)  # fmt: skip


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
        self._readers: dict[str, confluent_kafka.Consumer] = {}
        self._lock = threading.Lock()
        self._client = AdminClient(
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
                failure = self._failure(f"delete topic {name}", exception)
                if not isinstance(failure, NotFound):
                    raise failure from exception
                missing = failure
        self._wait(lambda: not self._describe(topics), f"{', '.join(topics)}: still there after the deletion")
        if missing is not None:
            raise missing

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
        # Through a consumer: list_consumer_group_offsets can end the process while a broker is down.
        reader = self._reader(group)
        return self._patiently(
            f"committed offsets of {group}",
            lambda: committed_offsets(reader, partitions, _REQUEST_TIMEOUT),
        )

    def list_groups(self) -> list[str]:
        """Names of all groups."""
        answer = self._patiently(
            "list groups",
            lambda: self._client.list_consumer_groups(request_timeout=_REQUEST_TIMEOUT).result(),
        )
        return sorted(group.group_id for group in answer.valid)

    def close(self) -> None:
        """Release the readers; the client ends with its last reference."""
        with self._lock:
            readers, self._readers = self._readers, {}
        for reader in readers.values():
            reader.close()

    # ---------------------------------------------------------------------------------------- internals

    def _describe(self, topics: Sequence[str]) -> dict[str, tuple[TopicInfo, bool]]:
        if not topics:
            return {}
        found: dict[str, tuple[TopicInfo, bool]] = {}

        def ask() -> None:
            collection = TopicCollection(list(topics))
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

        self._patiently("describe topics", ask)
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
            except KafkaException as exception:
                if kafka_error(exception).code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    return False
                raise
            return True

        return self._patiently(f"create topic {topic.name}", ask)

    def _wait_for_leaders(self, partitions: Mapping[str, int]) -> None:
        def are_there() -> bool:
            known = self._client.list_topics(timeout=_REQUEST_TIMEOUT).topics
            return all(
                name in known
                and known[name].error is None
                and len(known[name].partitions) > 0
                and all(each.leader >= 0 for each in known[name].partitions.values())
                for name in partitions
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
            return {TopicPartition(at.topic, at.partition): future.result().offset for at, future in answers.items()}

        def ask_or_miss() -> dict[TopicPartition, int]:
            try:
                return ask()
            except KafkaException as exception:
                # "No leaders found" is also what a missing topic gives: don't wait ten seconds for that.
                if kafka_error(exception).code() in {KafkaError._NOENT, KafkaError.UNKNOWN_TOPIC_OR_PART}:
                    self._check_exist(what, partitions)
                raise

        return self._patiently(what, ask_or_miss)

    def _check_exist(self, what: str, partitions: Sequence[TopicPartition]) -> None:
        found = self.describe(sorted({where.topic for where in partitions}))
        for where in partitions:
            if where.topic not in found or where.partition >= found[where.topic].partitions:
                raise NotFound(f"{what}: {where} does not exist on {self._address}")

    def _reader(self, group: str) -> confluent_kafka.Consumer:
        with self._lock:
            if group not in self._readers:
                self._readers[group] = confluent_kafka.Consumer(
                    dict(self._reader_config(group)), logger=client_logger("consumer")
                )
            return self._readers[group]

    def _patiently(self, what: str, ask: Callable[[], T]) -> T:
        """Ask until there is an answer that the next second would not change."""
        started = time.monotonic()
        while True:
            try:
                return ask()
            except KafkaException as exception:
                self._client.poll(0)  # nothing else serves the error callback, which learns of refused credentials
                late = time.monotonic() - started >= _PATIENCE
                if kafka_error(exception).code() not in _AGAIN or self._refused or late:
                    raise self._failure(what, exception, started) from exception
            time.sleep(0.1)

    def _failure(self, what: str, exception: KafkaException, started: float | None = None) -> SageError:
        error = kafka_error(exception)
        if self._refused is not None:
            refused, self._refused = self._refused, None
            return refused
        if error.code() in _AGAIN:
            reason = "it answers and serves nothing: check security.protocol"
            try:
                probe(self._address, self._config, timeout=1.0)
            except ProbeFailed as failed:
                reason = str(failed)
            except SageError as refused:
                return refused
            waited = _PATIENCE if started is None else time.monotonic() - started
            return unreachable(self._address, reason, waited, origin=self._origin)
        return sage_error(error, what, address=self._address)

    def _on_error(self, error: KafkaError) -> None:
        failure = poll_failure(error, "connect", address=self._address)
        if failure is not None:
            self._refused = failure


def _stand_in(name: str) -> str:
    """A stable id for a topic of a broker without topic ids."""
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
