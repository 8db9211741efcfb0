"""What an exception means for the record that met it."""

from __future__ import annotations

import asyncio
import errno
import http.client
import socket
import ssl
import urllib.error
from email.message import Message
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import openai
import pytest
from confluent_kafka import KafkaError, KafkaException
from pydantic import BaseModel, ValidationError

from sage import errors
from sage.ports import CommitRefused, ProducerFatal
from sage.runtime.retries.failures import Verdict, classify


class Model(BaseModel):
    number: int


def validation_error() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"number": "x"})
    return caught.value


def http_status(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://localhost/")
    return httpx.HTTPStatusError("refused", request=request, response=httpx.Response(status, request=request))


REQUEST: Any = httpx.Request("POST", "http://localhost/")


def openai_status(status: int) -> openai.APIStatusError:
    response: Any = httpx.Response(status, request=REQUEST)
    return openai.APIStatusError("refused", response=response, body=None)


def urllib_status(status: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://localhost/", status, "refused", Message(), None)


class LibraryError(OSError):
    """Python makes no ConnectionError or TimeoutError of a subclass."""


def named(name: str) -> Exception:
    """An exception of a library that is not installed, known by its class's name."""
    made: Exception = type(name, (Exception,), {})("it went away")
    return made


RETRY = [
    errors.TransientFailure("x"),
    errors.RateLimited("x", retry_after=3),
    errors.Unreachable("x"),
    errors.DeadlineExceeded("x"),
    ConnectionError("x"),
    ConnectionResetError("x"),
    BrokenPipeError("x"),
    TimeoutError("x"),
    TimeoutError(),
    InterruptedError("x"),
    socket.gaierror(socket.EAI_AGAIN, "name resolution"),
    socket.gaierror(socket.EAI_NONAME, "name or service not known"),
    OSError(errno.ENETUNREACH, "network is unreachable"),
    OSError(errno.EHOSTUNREACH, "no route to host"),
    OSError(errno.ENETDOWN, "network is down"),
    OSError(errno.EHOSTDOWN, "host is down"),
    OSError(errno.ENETRESET, "dropped on reset"),
    OSError(errno.ENOTCONN, "not connected"),
    OSError(errno.EADDRNOTAVAIL, "no local port left"),
    OSError(errno.ENOBUFS, "no buffer space"),
    OSError(errno.ETIMEDOUT, "timed out"),
    OSError(errno.ECONNABORTED, "aborted"),
    LibraryError(errno.ECONNREFUSED, "refused"),
    LibraryError(errno.ECONNRESET, "reset"),
    LibraryError(errno.ETIMEDOUT, "timed out"),
    OSError(
        f"Multiple exceptions: [Errno {errno.ECONNREFUSED}] Connect call failed ('::1', 1, 0, 0), "
        f"[Errno {errno.ECONNREFUSED}] Connect call failed ('127.0.0.1', 1)"
    ),
    OSError(
        f"Multiple exceptions: [Errno {errno.EACCES}] Permission denied, "
        f"[Errno {errno.ENETUNREACH}] Connect call failed ('192.0.2.1', 1)"
    ),
    asyncio.IncompleteReadError(b"half", 8),
    http.client.IncompleteRead(b"half", 4),
    ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol"),
    http_status(408),
    http_status(425),
    http_status(429),
    http_status(500),
    http_status(503),
    openai_status(429),
    openai_status(502),
    urllib_status(503),
    urllib.error.URLError(ConnectionRefusedError("refused")),
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    openai.APIConnectionError(request=REQUEST),
    openai.APITimeoutError(request=REQUEST),
    KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "x", retriable=True)),
    named("ClientConnectionError"),
    named("ServerDisconnectedError"),
    type("ConnectionError", (OSError,), {})("as requests has it"),
]
DEAD = [
    errors.RecordFailure("x"),
    errors.DecodeFailure("x"),
    errors.RecordTooLarge("x"),
    errors.MemoryFailure("x"),
    errors.DimensionMismatch("x"),
    ValueError("x"),
    KeyError("x"),
    TypeError("x"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
    validation_error(),
    ZeroDivisionError("x"),
    AttributeError("x"),
    AssertionError("x"),
    RuntimeError("x"),
    EOFError("ran out of input"),
    OSError("x"),
    OSError(f"wrapped: [Errno {errno.ECONNREFUSED}]"),
    OSError(f"Multiple exceptions: [Errno {errno.EACCES}] Permission denied, [Errno {errno.EPERM}] Not permitted"),
    OSError(errno.EIO, "input/output error"),
    OSError(errno.EADDRINUSE, "address in use"),
    OSError(errno.EROFS, "read-only file system"),
    FileNotFoundError(errno.ENOENT, "no such file"),
    PermissionError(errno.EACCES, "permission denied"),
    IsADirectoryError(errno.EISDIR, "is a directory"),
    ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, "certificate verify failed"),
    http_status(400),
    http_status(404),
    http_status(422),
    openai_status(400),
    urllib_status(404),
    KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "x")),
]
STOP = [
    errors.StageStopped("x"),
    errors.InvalidTopology("x"),
    errors.NotImportable("x"),
    errors.Conflict("x"),
    errors.ChangeRefused("x"),
    errors.UnknownName("x"),
    errors.NotInThisVersion("x"),
    errors.MissingVariable("x"),
    errors.Unauthorized("x"),
    errors.Forbidden("x"),
    errors.NotFound("x"),
    errors.FolderInUse("x"),
    errors.DiskFull("x"),
    errors.ServiceFailed("x"),
    CommitRefused("x"),
    ProducerFatal("x"),
    errors.PortTaken("x"),
    OSError(errno.ENOSPC, "no space left on device"),
    http_status(401),
    http_status(403),
    openai_status(401),
    urllib_status(403),
]
TABLE = [
    *((error, Verdict.RETRY) for error in RETRY),
    *((error, Verdict.DEAD) for error in DEAD),
    *((error, Verdict.STOP) for error in STOP),
]


@pytest.mark.parametrize(("error", "verdict"), TABLE, ids=lambda value: repr(value)[:60])
def test_classification(error: BaseException, verdict: Verdict) -> None:
    assert classify(error) is verdict


def test_every_error_that_sage_raises_on_purpose_has_its_place_in_the_table() -> None:
    def tree(kind: type[BaseException]) -> set[type[BaseException]]:
        return {kind}.union(*(tree(child) for child in kind.__subclasses__() if child.__module__ == "sage.errors"))

    covered = {type(error) for error, _ in TABLE}
    assert tree(errors.SageError) - covered == {errors.SageError, errors.IndexFilterMissing}


async def test_calls_that_failed_together_are_tried_again_where_each_of_them_may_succeed() -> None:
    async def fails(error: Exception) -> None:
        await asyncio.sleep(0)
        raise error

    async def together(*failures: Exception) -> Verdict:
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                for failure in failures:
                    group.create_task(fails(failure))
        assert len(caught.value.exceptions) == len(failures)
        return classify(caught.value)

    assert await together(ConnectionResetError(), TimeoutError()) is Verdict.RETRY
    assert await together(ConnectionResetError(), ValueError()) is Verdict.DEAD
    assert await together(ConnectionResetError(), errors.Unauthorized("no"), ValueError()) is Verdict.STOP
    assert await together(ExceptionGroup("inner", [TimeoutError()]), TimeoutError()) is Verdict.RETRY


async def test_a_name_of_which_every_address_refuses_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As asyncio itself tells of it, where a name has more than one address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")

    async def both(*_: Any, **__: Any) -> Any:
        return [(*kind, (address, port)) for address in ("127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    with pytest.raises(OSError, match=r"^Multiple exceptions: \[Errno \d+\]") as caught:
        await asyncio.open_connection("both", port)
    assert caught.value.errno is None
    assert classify(caught.value) is Verdict.RETRY


@pytest.mark.parametrize("status", [True, "500", None, 7, 99, 600])
def test_what_is_no_http_status_is_not_taken_for_one(status: Any) -> None:
    error = RuntimeError("x")
    error.status_code = status  # type: ignore[attr-defined]
    error.response = SimpleNamespace(status=status)  # type: ignore[attr-defined]
    assert classify(error) is Verdict.DEAD
