"""What to do with an exception: the one place that decides it, each branch with its reason."""

from __future__ import annotations

import enum
import errno
import re

from sage.errors import (
    ChangeRefused,
    Conflict,
    DeadlineExceeded,
    DiskFull,
    FolderInUse,
    InvalidTopology,
    MemoryFailure,
    MissingVariable,
    NotFound,
    PortTaken,
    RecordFailure,
    ServiceFailed,
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
    if isinstance(error, BaseExceptionGroup):
        return _of_group({classify(one) for one in error.exceptions})
    for kinds, verdict in _BY_CLASS:
        if isinstance(error, kinds):
            return verdict
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Verdict.STOP  # a full disk, as DiskFull
    if isinstance(error, OSError) and _is_network_state(error):
        return Verdict.RETRY  # the network, not the record: Python has classes of their own for a few of these only
    status = _status(error)
    if status:
        return _of_status(status)
    if _is_retriable_kafka(error) or _names_connection_trouble(error):
        return Verdict.RETRY  # the client libraries' own classes, known by what they say of themselves
    return Verdict.DEAD  # unknown: a bug in a step must not stop the other records


_BY_CLASS: tuple[tuple[tuple[type[BaseException], ...], Verdict], ...] = (
    # Our own client is broken or fenced; the record is innocent.
    ((ProducerFatal, CommitRefused), Verdict.STOP),
    # Nothing about the record; no other record will fare better.
    ((StageStopped, InvalidTopology, MissingVariable), Verdict.STOP),
    # About what is deployed, not about a record.
    ((Conflict, ChangeRefused), Verdict.STOP),
    # Wrong credentials, missing model or collection: killing every record would lose a day's data.
    ((Unauthorized, NotFound), Verdict.STOP),
    # This machine, not the record; somebody has to look at it.
    ((FolderInUse, PortTaken, ServiceFailed, DiskFull), Verdict.STOP),
    # The record itself was refused.
    ((RecordFailure,), Verdict.DEAD),
    # The other side may come back.
    ((TransientFailure, Unreachable, DeadlineExceeded), Verdict.RETRY),
    # For example vectors of another length: the same again next time.
    ((MemoryFailure,), Verdict.DEAD),
    # The code met a value it does not take (pydantic's and JSON's errors are ValueErrors); nor will it next time.
    ((ValueError, KeyError, TypeError), Verdict.DEAD),
    # The network, not the record.
    ((ConnectionError, TimeoutError, InterruptedError), Verdict.RETRY),
)
"""The first line that fits decides."""


def _of_group(verdicts: set[Verdict]) -> Verdict:
    """Of several errors at once, as of an ``asyncio.TaskGroup``: another try helps only where it helps against all."""
    if Verdict.STOP in verdicts:
        return Verdict.STOP
    return Verdict.DEAD if Verdict.DEAD in verdicts else Verdict.RETRY


_NETWORK = frozenset(
    {
        # No way there now: a cable, a route, an interface or a machine that comes back.
        errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN,
        # The way is there and nobody answers, or not in time.
        errno.ECONNREFUSED, errno.ETIMEDOUT,
        # The connection is gone; the next try makes another.
        errno.ECONNRESET, errno.ECONNABORTED, errno.ENETRESET, errno.EPIPE, errno.ESHUTDOWN, errno.ENOTCONN,
        # This machine has no local port or no buffer left until other connections end.
        errno.EADDRNOTAVAIL, errno.ENOBUFS,
    }
)  # fmt: skip
"""States of the network that pass. Those that are ConnectionError or TimeoutError are here for libraries' subclasses of
OSError, which Python does not turn into these. No files, rights or disks: they stay as they are."""

_ERRNO = re.compile(r"\[Errno (\d+)\]")


def _is_network_state(error: OSError) -> bool:
    if error.errno is not None:
        return error.errno in _NETWORK
    # asyncio's, when several addresses of a name failed, as IPv6 and IPv4: the numbers are in its text alone. One
    # address that may come back is enough.
    text = str(error)
    return text.startswith("Multiple exceptions: ") and any(int(one) in _NETWORK for one in _ERRNO.findall(text))


def _of_status(status: int) -> Verdict:
    if status in (408, 425, 429) or status >= 500:
        return Verdict.RETRY  # HTTP's own words for "later"
    if status in (401, 403):
        return Verdict.STOP  # every record would be refused
    return Verdict.DEAD  # an answer, not trouble on the way to one: this request is refused


def _status(error: BaseException) -> int:
    """The HTTP error that the common client libraries put on their exceptions; 0 where there is none."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 400 <= value < 600:
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
        # httpx
        "ConnectError", "ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout", "ReadError", "WriteError",
        "RemoteProtocolError",
        # openai
        "APIConnectionError", "APITimeoutError",
        # aiohttp
        "ClientConnectionError", "ServerDisconnectedError",
        # requests and urllib3
        "ConnectionError", "Timeout", "MaxRetryError", "NewConnectionError", "ProtocolError",
        # the standard library; a name that nobody knows may be that of a machine which is being started
        "URLError", "gaierror",
        # the standard library as well: the other side ended the connection in the middle of an answer. A bare EOFError
        # does not say that: parsers (pickle, gzip) raise it for a value that was cut off, and it stays cut off.
        "IncompleteReadError", "IncompleteRead", "SSLEOFError",
    }
)  # fmt: skip


def _names_connection_trouble(error: BaseException) -> bool:
    """HTTP libraries do not derive from Python's ConnectionError, and the runtime imports none of them."""
    return any(kind.__name__ in _CONNECTION_NAMES for kind in type(error).__mro__)
