"""The one place where a librdkafka error becomes an error of SAGE.

Every branch says why. What another poll, another try or another broker mends is transient; what a person
has to mend is ``Unauthorized``, ``NotFound`` or ``InvalidTopology``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from sage.errors import (
    Forbidden,
    InvalidTopology,
    NotFound,
    RecordTooLarge,
    SageError,
    StageStopped,
    TransientFailure,
    Unauthorized,
    Unreachable,
)
from sage.ports import CommitRefused, DeliveryFailure, ProducerFatal, TransactionAbortable

_LOGIN: Final = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED,
     KafkaError.UNSUPPORTED_SASL_MECHANISM}
)  # fmt: skip

_FORBIDDEN: Final = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
     KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED}
)  # fmt: skip

_UNREACHABLE: Final = frozenset(
    {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._TIMED_OUT,
     KafkaError._TIMED_OUT_QUEUE, KafkaError.BROKER_NOT_AVAILABLE,
     KafkaError._DESTROY_BROKER}  # the broker that was asked is no longer part of the cluster, for now or for good
)  # fmt: skip

_MISSING: Final = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,
     KafkaError.UNKNOWN_TOPIC_ID, KafkaError.GROUP_ID_NOT_FOUND}
)  # fmt: skip

_INVALID: Final = frozenset(
    {KafkaError._INVALID_ARG, KafkaError.TOPIC_EXCEPTION, KafkaError.INVALID_CONFIG, KafkaError.INVALID_PARTITIONS,
     KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.POLICY_VIOLATION, KafkaError.INVALID_GROUP_ID,
     KafkaError.UNSUPPORTED_ASSIGNOR, KafkaError.INCONSISTENT_GROUP_PROTOCOL, KafkaError.INVALID_SESSION_TIMEOUT,
     KafkaError.INVALID_TRANSACTION_TIMEOUT}
)  # fmt: skip

# The group has given the partitions to somebody else, or does not know us any more: our work is a replay now.
_REFUSED: Final = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_MEMBER_EPOCH,
     KafkaError.FENCED_INSTANCE_ID, KafkaError._ASSIGNMENT_LOST, KafkaError._FENCED}
)  # fmt: skip

# We still own the partitions; the commit has to wait for the end of the rebalance or for a heartbeat.
_COMMIT_AGAIN: Final = frozenset(
    {KafkaError.REBALANCE_IN_PROGRESS, KafkaError.STALE_MEMBER_EPOCH, KafkaError._WAIT_COORD,
     KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR}
)  # fmt: skip

_TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})

_DELIVERY_RETRIABLE: Final = frozenset(
    {KafkaError._MSG_TIMED_OUT, KafkaError._TRANSPORT, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT,
     KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT, KafkaError.NOT_ENOUGH_REPLICAS,
     KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, KafkaError.NOT_LEADER_FOR_PARTITION,
     KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NETWORK_EXCEPTION}
)  # fmt: skip

# A leader has just moved; ours or the broker's picture of it is a moment behind.
_MOVING: Final = frozenset(
    {KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.FENCED_LEADER_EPOCH, KafkaError.LEADER_NOT_AVAILABLE,
     KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.OFFSET_NOT_AVAILABLE}
)  # fmt: skip


_UNRELEASED: Final = str(KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str())
"""A static member's name is taken, by another process or by a dead one until its session ends. librdkafka tells it
as a fatal error that quotes these words."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a call needs on the brokers, for the message of one that lacks it; empty names are not known.

    Attributes:
        operation: on topics.
        topic, group, transactional_id: what it is about.
    """

    operation: str = "Describe"
    topic: str = ""
    group: str = ""
    transactional_id: str = ""


def kafka_error(exception: KafkaException) -> KafkaError:
    """The error inside a KafkaException."""
    error = exception.args[0]
    if not isinstance(error, KafkaError):  # a few client-side checks raise with plain text
        return KafkaError(KafkaError._FAIL, str(error))
    return error


def text(error: KafkaError) -> str:
    """librdkafka's words for an error, with its name, on one line."""
    return f"{' '.join(str(error.str()).split())} ({error.name()})"


def unreachable(address: str, reason: str, seconds: float, *, origin: str = "") -> Unreachable:
    """The error for a broker that nobody answers at; ``origin`` says where the address came from."""
    source = f"; from {origin}" if origin else ""
    return Unreachable(
        f"cannot reach {address} ({reason}, {seconds:.0f} s{source}). Start one with `sage up`, or see `sage doctor`."
    )


def sage_error(error: KafkaError, what: str, *, address: str, access: Access = Access()) -> SageError:
    """The error to raise for a call that failed for good.

    Args:
        error: librdkafka's error.
        what: the call and its object, for example ``create topic qa.prompt``.
        address: the brokers, for the message.
        access: what the call needs there.
    """
    code, detail = error.code(), text(error)
    if code in _LOGIN:
        return Unauthorized(
            f"{what}: {address} refused us: {detail}; check the user, the password and the certificates that "
            "--kafka-config or the context of `sage config` names"
        )
    if code in _FORBIDDEN:
        return _forbidden(error, what, address, access)
    if code in _UNREACHABLE:
        return Unreachable(f"{what}: no answer from {address}: {detail}; see `sage doctor`")
    if code in _MISSING:
        return NotFound(f"{what}: does not exist on {address}: {detail}")
    if code in _TOO_LARGE:
        return RecordTooLarge(f"{what}: {detail}")
    if code == KafkaError._INVALID_ARG:  # librdkafka's own word, before any broker is asked
        return InvalidTopology(f"{what}: not possible: {detail}")
    if code in _INVALID:
        return InvalidTopology(f"{what}: {address} refused it: {detail}")
    if error.retriable() or code in _COMMIT_AGAIN or code in _MOVING:
        return TransientFailure(f"{what}: {detail}")
    return StageStopped(f"{what}: {detail}")


def _forbidden(error: KafkaError, what: str, address: str, access: Access) -> Forbidden:
    """Names the right that is missing, and the line of Kafka's own tool that gives it."""
    kind, name, operation = {
        KafkaError.TOPIC_AUTHORIZATION_FAILED: ("topic", access.topic, access.operation),
        KafkaError.GROUP_AUTHORIZATION_FAILED: ("group", access.group, "Read"),
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: ("transactional-id", access.transactional_id, "Write"),
        KafkaError.CLUSTER_AUTHORIZATION_FAILED: ("cluster", "", "IdempotentWrite"),
    }[error.code()]
    shown = f"{kind.replace('-', ' ')} {name}".strip()
    target = "--cluster" if kind == "cluster" else f"--{kind} {name or 'NAME'}"
    return Forbidden(
        f"{what}: this account lacks {operation} on {shown} at {address} ({text(error)}). `kafka-acls.sh --add "
        f"--allow-principal User:NAME --operation {operation} {target}` gives it; see `sage doctor --prefix`"
    )


def poll_failure(error: KafkaError, what: str, *, address: str, access: Access = Access()) -> SageError | None:
    """What an error event of a client means: ``None`` for one that the client mends by itself."""
    code = error.code()
    if code in _LOGIN or code in _FORBIDDEN or code in _MISSING or code in _INVALID:
        return sage_error(error, what, address=address, access=access)
    if _UNRELEASED in error.str():
        return TransientFailure(f"{what}: {text(error)} on {address}")
    # The client instance is of no more use. A consumer says so by the code alone.
    if error.fatal() or code == KafkaError._FATAL:
        return StageStopped(f"{what}: {text(error)} on {address}")
    # Lost connections, brokers down, a rebalance, a poll that came late: the client goes on by itself.
    return None


def commit_failure(error: KafkaError, *, address: str, access: Access = Access()) -> Exception:
    """What to raise for a commit that failed."""
    if error.code() in _REFUSED:
        return CommitRefused(text(error))
    if error.code() in _COMMIT_AGAIN or error.code() in _UNREACHABLE or error.retriable():
        return TransientFailure(f"commit: {text(error)}")
    return sage_error(error, "commit", address=address, access=access)


def transaction_failure(error: KafkaError, what: str, *, address: str, access: Access = Access()) -> Exception:
    """What to raise for a failed call of a transaction; librdkafka says itself which of the three it is."""
    # A right that is missing: fatal or abortable to librdkafka, and neither another producer nor another try mends it.
    if error.code() in _FORBIDDEN:
        return _forbidden(error, what, address, access)
    if error.fatal() or error.code() in {KafkaError._FENCED, KafkaError._FATAL}:
        return ProducerFatal(f"{what}: {text(error)}")
    if error.txn_requires_abort():
        return TransactionAbortable(f"{what}: {text(error)}")
    if error.retriable() or error.code() in _UNREACHABLE:
        return TransientFailure(f"{what}: {text(error)}")
    return sage_error(error, what, address=address, access=access)


def delivery_failure(error: KafkaError, topic: str, partition: int) -> DeliveryFailure:
    """A failed record, as the checkpoint sees it."""
    return DeliveryFailure(
        topic=topic,
        partition=partition,
        reason=text(error),
        too_large=error.code() in _TOO_LARGE,
        retriable=error.retriable() or error.code() in _DELIVERY_RETRIABLE,
    )
