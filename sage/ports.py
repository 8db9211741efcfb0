"""The seams: what the runtime and the operators need from the outside, and nothing of how it is done.

Each port has one contract suite in ``tests/contract`` that runs on every implementation.
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from sage.model.documents import Message, Usage
from sage.model.partition import TopicPartition
from sage.model.record import Headers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# ------------------------------------------------------------------------------------------- Kafka


class RawMessage(Protocol):
    """One consumed record, exactly as confluent-kafka gives it, so that no record is wrapped on the way."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> list[tuple[str, bytes | None]] | None: ...
    def timestamp(self) -> tuple[int, int]:
        """(type, milliseconds); type 0 is "not available"."""
        ...


class RebalanceListener(Protocol):
    """Called inside ``Consumer.poll``, on the consumer's thread, with incremental changes only."""

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """These are ours from now on; fetching starts at the committed offset when this returns."""
        ...

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """These go to somebody else when this returns: finish and commit them here, in bounded time."""
        ...

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """These were given away already: throw their work away, commit nothing."""
        ...


class Consumer(Protocol):
    """A member of a group (or, with ``assign``, a plain reader). One thread calls it."""

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None: ...

    def assign(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets (-2 = earliest), outside any group."""
        ...

    def poll(self, max_messages: int, timeout: float) -> list[RawMessage]:
        """Records that are there, at most ``max_messages``; waits ``timeout`` seconds for the first only.

        Rebalance callbacks run inside. Retriable broker errors are logged and polled over.

        Raises:
            SageError: Unauthorized, NotFound and other failures that another poll can't mend.
        """
        ...

    def ends_reached(self) -> Mapping[TopicPartition, int]:
        """Partitions whose end was reached since the last call, with the offset to commit there (decision 9)."""
        ...

    def pause(self, partitions: Sequence[TopicPartition]) -> None: ...
    def resume(self, partitions: Sequence[TopicPartition]) -> None: ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from here; for a rewind after a failed checkpoint."""
        ...

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit next-to-read offsets and wait for the broker's answer.

        Raises:
            CommitRefused: this member no longer owns them; nothing was committed by it.
            TransientFailure: try again.
        """
        ...

    def committed(
        self, partitions: Sequence[TopicPartition], timeout: float = 10.0
    ) -> dict[TopicPartition, int | None]:
        """Committed offsets of the group; ``None`` where there is none."""
        ...

    def assignment(self) -> frozenset[TopicPartition]: ...
    def group_metadata(self) -> object: ...

    def close(self) -> None:
        """Leave the group (revokes first) and release everything; idempotent."""
        ...


class CommitRefused(Exception):  # noqa: N818 - not an error to a user: the new owner goes on from the last commit
    """The group gave the partitions to another member before the commit arrived."""


class TransactionAbortable(Exception):  # noqa: N818 - an answer to the checkpoint, not an error to a user
    """This transaction can't be committed: abort it, check ownership, send again from memory (decision 6)."""


class ProducerFatal(Exception):  # noqa: N818 - an answer to the checkpoint, not an error to a user
    """This producer is of no more use (fenced, or broken): close it, make a new one and rewind."""


@dataclass(frozen=True, slots=True)
class DeliveryFailure:
    """One record that the broker did not take."""

    topic: str
    partition: int
    reason: str
    too_large: bool
    retriable: bool


class Producer(Protocol):
    """An idempotent producer. ``produce`` may be called from one thread, ``flush`` and ``poll`` from the same."""

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        timestamp: int | None = None,
        partition: int = -1,
        on_delivery: Callable[[DeliveryFailure | None, int, int], None] | None = None,
    ) -> None:
        """Queue one record; partition by murmur2 of the key unless ``partition`` >= 0.

        ``on_delivery(failure, partition, offset)`` is called from ``poll`` or ``flush``.

        Raises:
            BufferError: the queue is full; ``poll`` and try again.
            RecordTooLarge: the encoded record, headers included, is over ``message.max.bytes``.
        """
        ...

    def poll(self, timeout: float = 0.0) -> int:
        """Serve delivery reports; returns how many."""
        ...

    def flush(self, timeout: float) -> int:
        """Wait for all queued records; returns how many are still under way."""
        ...

    def take_failures(self) -> list[DeliveryFailure]:
        """Delivery failures of records without an ``on_delivery`` of their own since the last call (decision 4)."""
        ...

    def __len__(self) -> int:
        """Records queued or in flight."""
        ...

    # Transactions: only on a producer made with a transactional id.
    def init_transactions(self, timeout: float = 30.0) -> None: ...
    def begin_transaction(self) -> None: ...
    def send_offsets(self, offsets: Mapping[TopicPartition, int], group_metadata: object) -> None: ...
    def commit_transaction(self, timeout: float = 30.0) -> None: ...
    def abort_transaction(self, timeout: float = 30.0) -> None: ...

    def close(self, timeout: float = 10.0) -> None: ...


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to be made. ``config`` holds broker-side topic properties such as ``cleanup.policy``."""

    name: str
    partitions: int = 1
    replication_factor: int = 1
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic that exists. ``topic_id`` is its UUID as text, or a stable stand-in where the broker has none."""

    name: str
    topic_id: str
    partitions: int
    replication_factor: int


class Admin(Protocol):
    """Topics and offsets. Every call raises Unreachable, Unauthorized or NotFound where that is the reason."""

    def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """Those of ``topics`` that exist."""
        ...

    def list_topics(self) -> list[TopicInfo]: ...

    def create(self, topics: Sequence[TopicSpec]) -> list[str]:
        """Make the missing ones and wait until they can be used; returns the names made."""
        ...

    def delete(self, topics: Sequence[str]) -> None: ...

    def end_offsets(self, partitions: Sequence[TopicPartition], *, committed: bool = True) -> dict[TopicPartition, int]:
        """The last stable offset (or, with ``committed=False``, the high watermark) of each partition."""
        ...

    def start_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]: ...

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int | None]: ...

    def list_groups(self) -> list[str]: ...

    def close(self) -> None: ...


class KafkaClients(Protocol):
    """Makes clients that share one configuration: the only door from the runtime to Kafka."""

    def consumer(
        self,
        group: str | None,
        *,
        read_from: Literal["earliest", "latest"] = "earliest",
        config: Mapping[str, Any] | None = None,
    ) -> Consumer: ...
    def producer(self, *, transactional_id: str | None = None, config: Mapping[str, Any] | None = None) -> Producer: ...
    def admin(self) -> Admin: ...
    @property
    def address(self) -> str:
        """The brokers, for messages."""
        ...

    @property
    def is_embedded(self) -> bool: ...


# ------------------------------------------------------------------------------------------ models


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat call. ``timeout`` in seconds for the whole answer."""

    messages: tuple[Message, ...]
    model: str
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    timeout: float = 60.0
    idempotency_key: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """A finished answer. ``model`` is what the service says it was."""

    text: str
    model: str
    usage: Usage
    finish_reason: str = "stop"
    id: str = ""


class ChatModel(Protocol):
    """A chat service.

    ``complete`` raises Unreachable (nobody answers), Unauthorized, NotFound (unknown model), RateLimited,
    TransientFailure (time-out, 5xx) or RecordFailure (this request is refused: too long, malformed).
    """

    async def complete(
        self, request: ChatRequest, *, on_delta: Callable[[str], Awaitable[None]] | None = None
    ) -> ChatResponse: ...

    async def close(self) -> None: ...


@runtime_checkable
class Checkable(Protocol):
    """A chat model that can say before the first record whether it will be of use."""

    async def check(self, model: str) -> None:
        """Return if the service is there, takes the key and knows the model, as far as can be told cheaply.

        Raises Unreachable, Unauthorized or NotFound.
        """
        ...


class Embedder(Protocol):
    """Texts to unit vectors."""

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...

    def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> NDArray[np.float32]:
        """A float32 array of shape (len(texts), dim)."""
        ...


# ------------------------------------------------------------------------------------------ memory


@dataclass(frozen=True, slots=True)
class StoredVector:
    """One row of a vector collection."""

    id: str
    vector: Sequence[float]
    text: str
    metadata: Mapping[str, Any]
    indexes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoredVector:
    """One hit: cosine similarity, higher is nearer."""

    id: str
    text: str
    score: float
    metadata: Mapping[str, Any]


class VectorStore(Protocol):
    """A database of vector collections. Raises NotFound, DimensionMismatch, Unreachable, FolderInUse."""

    def create(self, collection: str, *, dim: int, description: str = "") -> None: ...
    def exists(self, collection: str) -> bool: ...
    def list(self) -> builtins.list[str]: ...
    def drop(self, collection: str) -> None: ...
    def rename(self, collection: str, new_name: str) -> None: ...
    def upsert(self, collection: str, rows: Sequence[StoredVector]) -> None:
        """Insert or replace by id; readable by ``search`` when this returns."""
        ...

    def delete(self, collection: str, ids: Sequence[str]) -> int: ...
    def get(self, collection: str, ids: Sequence[str]) -> builtins.list[StoredVector]: ...
    def scan(self, collection: str, *, batch_size: int = 1000, filter: str | None = None) -> Any:
        """An iterator over lists of StoredVector: all rows that the filter lets through."""
        ...

    def count(self, collection: str) -> int: ...
    def dim(self, collection: str) -> int: ...
    def search(
        self,
        collection: str,
        vectors: Sequence[Sequence[float]],
        *,
        top_k: int,
        index: str | None = None,
        filter: str | None = None,
    ) -> builtins.list[builtins.list[ScoredVector]]: ...
    def flush(self, collection: str) -> None: ...
    def close(self) -> None: ...


# ------------------------------------------------------------------------------------ time and hooks


class Clock(Protocol):
    """Time, so that tests can turn it by hand."""

    def monotonic(self) -> float: ...
    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until ``event`` is set, at most ``seconds``; returns whether it is."""
        ...


class Span(Protocol):
    """A started span. Every method is safe when tracing is off."""

    def set(self, name: str, value: str | int | float | bool) -> None: ...
    def fail(self, error: BaseException) -> None: ...
    def end(self) -> None: ...


class Tracer(Protocol):
    """Spans around records. Telemetry never stops a record: no method raises."""

    @property
    def active(self) -> bool:
        """Whether an exporter is configured; when false no span is ever made."""
        ...

    def sampled(self, headers: Headers) -> bool:
        """Whether the record's own traceparent has the sampled bit."""
        ...

    def start_root(self) -> list[tuple[str, bytes]]:
        """W3C headers of a new trace for a record that a source yields (made even when nothing exports).

        Where the trace is sampled its root span, ``create``, is made and ended here.
        """
        ...

    def process(self, topic: str, message: RawMessage, *, group: str, step: str) -> Span:
        """``process TOPIC``, CONSUMER, child of the span in the message's headers; current until ended."""
        ...

    def step(self, name: str, parent: Span) -> Span:
        """An INTERNAL child for a fused step."""
        ...

    def send(self, topic: str, parent: Span | None) -> tuple[Span, list[tuple[str, bytes]]]:
        """``send TOPIC``, PRODUCER; with the W3C headers that the produced record carries."""
        ...

    def poll(self, topic: str, messages: Sequence[RawMessage], *, group: str, started: int) -> None:
        """``poll TOPIC``, CLIENT, from ``started`` (nanoseconds since the epoch), linked to its sampled records."""
        ...

    def commit(self, topic: str, parent: Span | None, *, group: str) -> Span:
        """``commit TOPIC``, CLIENT, child of the work on a record that it commits; to be ended."""
        ...

    def flush(self, timeout: float) -> None:
        """Wait for spans to be exported, at most ``timeout`` seconds."""
        ...

    def close(self, timeout: float = 1.0) -> None:
        """Export what there is within ``timeout`` seconds and release the exporter; idempotent."""
        ...
