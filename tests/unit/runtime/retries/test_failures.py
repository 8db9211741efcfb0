"""What an exception means for the record that met it."""

from __future__ import annotations

import errno
import socket
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
    socket.gaierror(-3, "name resolution"),
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


@pytest.mark.parametrize("status", [True, "500", None, 7, 99, 600])
def test_what_is_no_http_status_is_not_taken_for_one(status: Any) -> None:
    error = RuntimeError("x")
    error.status_code = status  # type: ignore[attr-defined]
    error.response = SimpleNamespace(status=status)  # type: ignore[attr-defined]
    assert classify(error) is Verdict.DEAD
