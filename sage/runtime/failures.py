"""What to do with an exception: the one place that decides it, each branch with its reason."""

from __future__ import annotations

import enum

from pydantic import ValidationError

from sage.errors import (
    DeadlineExceeded,
    DecodeFailure,
    FolderInUse,
    InvalidTopology,
    MemoryFailure,
    MissingVariable,
    NotFound,
    RecordFailure,
    StageStopped,
    TransientFailure,
    Unauthorized,
    Unreachable,
)
from sage.ports import CommitRefused, ProducerFatal


class Verdict(enum.Enum):
    """What an exception means for the record that met it."""

    RETRY = "retry"
    DEAD = "dead"
    STOP = "stop"


def classify(error: BaseException) -> Verdict:
    """Whether another try can help (RETRY), only this record is bad (DEAD), or every record will fail (STOP)."""
    if isinstance(error, ProducerFatal | CommitRefused):
        return Verdict.STOP  # our own client is broken or fenced; the record is innocent
    if isinstance(error, StageStopped | InvalidTopology | MissingVariable):
        return Verdict.STOP  # nothing about the record; no other record will fare better
    if isinstance(error, Unauthorized | NotFound | FolderInUse):
        return (
            Verdict.STOP
        )  # wrong credentials, missing model or collection: killing every record would lose a day's data
    if isinstance(error, RecordFailure | DecodeFailure):
        return Verdict.DEAD  # the record itself was refused
    if isinstance(error, TransientFailure | Unreachable | DeadlineExceeded):
        return Verdict.RETRY  # the other side may come back
    if isinstance(error, MemoryFailure):
        return Verdict.DEAD  # for example vectors of another length: the same again next time
    if isinstance(error, ValidationError | ValueError | KeyError | TypeError):
        return Verdict.DEAD  # the code met a value it does not take; it won't take it next time either
    if _status(error) in (408, 425, 429) or _status(error) >= 500:
        return Verdict.RETRY  # HTTP's own words for "later"
    if _status(error) in (401, 403):
        return Verdict.STOP  # every record would be refused
    if isinstance(error, ConnectionError | TimeoutError | InterruptedError):
        return Verdict.RETRY  # the network, not the record
    if _is_retriable_kafka(error) or _names_connection_trouble(error):
        return Verdict.RETRY  # the client libraries' own classes, known by what they say of themselves
    return Verdict.DEAD  # unknown: a bug in a step must not stop the other records


def _status(error: BaseException) -> int:
    """The HTTP status that the common client libraries put on their exceptions; 0 where there is none."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 100 <= value < 600:
                return value
    return 0


def _is_retriable_kafka(error: BaseException) -> bool:
    for argument in (error, *error.args):
        retriable = getattr(argument, "retriable", None)
        if callable(retriable) and retriable() is True:
            return True
    return False


_CONNECTION_NAMES = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "ReadTimeout",
        "APIConnectionError",
        "APITimeoutError",
        "RemoteProtocolError",
        "ReadError",
        "WriteError",
        "PoolTimeout",
        "WriteTimeout",
    }
)


def _names_connection_trouble(error: BaseException) -> bool:
    """httpx and openai do not derive from ConnectionError, and the runtime imports neither."""
    return any(kind.__name__ in _CONNECTION_NAMES for kind in type(error).__mro__)
