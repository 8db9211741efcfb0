from __future__ import annotations

from dataclasses import dataclass

import pytest

from sage.errors import DeadlineExceeded, MemoryFailure, NotFound, Unauthorized, Unreachable
from sage.memory.milvus_errors import as_sage_error, shown


@dataclass
class Refusal:
    code: int
    message: str


@pytest.mark.parametrize(
    ("code", "message", "error"),
    [
        (100, "can't find collection[database=default][collection=c]", NotFound),
        (
            65535,
            "RPC error: StatusCode.UNAUTHENTICATED, auth check failure, please check user and password",
            Unauthorized,
        ),
        (2, "Fail connecting to server on h:1, illegal connection params or server unavailable", Unreachable),
        (1, "<_MultiThreadedRendezvous: StatusCode.UNAVAILABLE, failed to connect", Unreachable),
        (1, "StatusCode.DEADLINE_EXCEEDED, Deadline Exceeded", DeadlineExceeded),
        (1, "[search] Retry timeout: 30s", DeadlineExceeded),
        (1100, "invalid dimension: 0\nsecond line", MemoryFailure),
    ],
)
def test_a_refusal_becomes_one_line(code: int, message: str, error: type[Exception]) -> None:
    made = as_sage_error(Refusal(code, message), "http://user:secret@host:19530", "c")
    assert type(made) is error
    assert "secret" not in str(made)
    assert "\n" not in str(made)


def test_addresses_are_shown_without_credentials() -> None:
    assert shown("https://user:secret@milvus.example:443") == "https://milvus.example:443"
    assert shown("http://localhost") == "http://localhost:19530"
