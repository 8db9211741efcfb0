"""Results of calls: kept, and given back as the function's annotation says."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from sage.errors import RecordFailure, StageStopped
from sage.ports import ChatResponse
from sage.spec.call_results import decode_result, encode_result
from sage.spec.direct_calls import DirectCalls

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True)
class Answer:
    """An answer with a field that JSON has no form for."""

    text: str
    at: datetime.datetime
    parts: tuple[int, ...] = ()


class Aliased(BaseModel):
    """A model whose names on the wire are others."""

    given_name: str = Field(alias="givenName")
    shown: str = Field(default="", serialization_alias="S", validation_alias="V")


class Counted(TypedDict):
    count: int


async def anything(value: Any) -> Any: ...
async def unannotated(value: Any): ...  # type: ignore[no-untyped-def]
async def an_answer() -> Answer: ...  # type: ignore[empty-body]
async def answers() -> list[Answer]: ...  # type: ignore[empty-body]
async def aliased() -> Aliased: ...  # type: ignore[empty-body]
async def counted() -> Counted: ...  # type: ignore[empty-body]
async def a_number() -> int: ...  # type: ignore[empty-body]
async def chat() -> ChatResponse: ...  # type: ignore[empty-body]
async def maybe_bytes() -> bytes | None: ...
async def a_set() -> set[int]: ...  # type: ignore[empty-body]
async def nothing() -> None: ...
def awaitable() -> Awaitable[Answer]: ...  # type: ignore[empty-body]
async def of_no_known_class() -> Opaque: ...  # type: ignore[empty-body]


class Opaque:
    """A class that nobody can write as JSON."""


class Service:
    """Called through a method, and as a function itself."""

    async def method(self) -> Answer: ...  # type: ignore[empty-body]
    async def __call__(self) -> Answer: ...  # type: ignore[empty-body]


ANSWER = Answer("a", datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC), (1, 2))


def back(result: Any, function: Any) -> Any:
    return decode_result(encode_result(result, function), function)


@given(JSON)
def test_plain_json_comes_back_as_it_was(result: Any) -> None:
    assert back(result, anything) == result
    assert back(result, unannotated) == result


@pytest.mark.parametrize("number", [float("inf"), float("-inf")])
def test_a_number_without_end_is_not_made_nothing(number: float) -> None:
    assert back({"a": [number]}, anything) == {"a": [number]}


@given(st.binary(max_size=20))
def test_bytes_come_back_as_they_were(result: bytes) -> None:
    assert back(result, anything) == result
    assert back(result, maybe_bytes) == result


@pytest.mark.parametrize(
    ("result", "function"),
    [
        (ANSWER, an_answer), (ANSWER, awaitable), (ANSWER, partial(an_answer)), (ANSWER, Service().method),
        (ANSWER, Service()), ([ANSWER, ANSWER], answers), ({"count": 1}, counted), ({1, 2}, a_set), (None, nothing),
        (None, maybe_bytes), (Aliased.model_validate({"givenName": "x", "V": "y"}), aliased),
        (ChatResponse("t", "m", {"input_tokens": 1, "output_tokens": 2}, "stop", "i"), chat),
    ],
)  # fmt: skip
def test_a_result_comes_back_as_its_annotation_says(result: Any, function: Any) -> None:
    found = back(result, function)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize("result", [object(), Opaque(), {"a": object()}, {"a": b"\xff"}])
def test_what_has_no_json_form_is_refused_with_what_to_do(result: Any) -> None:
    for function in (anything, of_no_known_class):
        with pytest.raises(RecordFailure, match="annotate what it returns"):
            encode_result(result, function)


def test_what_would_not_come_back_is_refused_at_once_and_not_after_a_crash() -> None:
    with pytest.raises(RecordFailure, match="a_number returned a str"):
        encode_result("text", a_number)


def test_what_other_code_kept_and_does_not_fit_any_more_stops() -> None:
    with pytest.raises(StageStopped, match="another name"):
        decode_result(encode_result("text", anything), a_number)


async def test_direct_calls_give_what_a_journal_would_give_back() -> None:
    @dataclass
    class Local:
        number: int

    async def local(number: int) -> Any:
        return Local(number)

    calls = DirectCalls("r1/step")
    assert await calls.call("ask", local, number=3) == {"number": 3}
    with pytest.raises(RecordFailure, match="JSON"):
        await calls.call("ask", anything_opaque)
    assert calls.idempotency_key("ask") == DirectCalls("r1/step").idempotency_key("ask")
    assert len({DirectCalls(place).idempotency_key(n) for place in ("r1/step", "r2/step") for n in ("a", "b")}) == 4


async def anything_opaque() -> Any:
    return object()
