"""What a call asks, as a text: the same for the same, another for anything else."""

from __future__ import annotations

import datetime
import enum
import math
import os
import subprocess
import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from sage.errors import RecordFailure
from sage.ports import ChatRequest
from sage.runtime.journal.fingerprint import arguments_hash

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2) | st.integers(0, 3), inner, max_size=3)
        | st.frozensets(st.text(max_size=2) | st.integers(0, 3), max_size=3)
    ),
    max_leaves=6,
)


class Kind(enum.Enum):
    ONE = 1
    TWO = 2


class Options(BaseModel):
    model: str
    api_key: SecretStr = SecretStr("k")


@dataclass(frozen=True)
class Request:
    question: str
    idempotency_key: str = ""


async def fetch(*arguments: Any) -> None: ...


def shown(value: Any) -> str:
    """A value with all of its kinds: what two values must share to be the same."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(shown(key) + ":" + shown(each) for key, each in value.items())) + "}"
    if isinstance(value, frozenset):
        return "(" + ",".join(sorted(map(shown, value))) + ")"
    if isinstance(value, list):
        return "[" + ",".join(map(shown, value)) + "]"
    return repr(value)


@given(VALUES, VALUES)
def test_two_values_have_one_hash_only_where_they_are_the_same(one: Any, other: Any) -> None:
    assert (arguments_hash((one,), {}) == arguments_hash((other,), {})) == (shown(one) == shown(other))


@given(st.lists(VALUES, max_size=3), st.lists(VALUES, max_size=3))
def test_arguments_do_not_run_into_each_other(one: list[Any], other: list[Any]) -> None:
    same = arguments_hash(one, {}) == arguments_hash(other, {})
    assert same == (shown(one) == shown(other))
    assert arguments_hash((), {"a": one}) != arguments_hash((one,), {})


def test_what_json_would_take_for_one_thing_are_two() -> None:
    different: list[Any] = [
        1, 1.0, True, "1", b"1", None, "null", math.nan, math.inf, [], {}, "", {1: 1}, {"1": 1}, frozenset(), Kind.ONE,
        2**70, Decimal("1"), datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1), "2026-01-01",
        PurePosixPath("a"), np.zeros(2, np.float32), np.zeros(2), np.zeros((2, 1)), Request("a"), {"question": "a"},
    ]  # fmt: skip
    assert len({arguments_hash((value,), {}) for value in different}) == len(different)


def test_what_is_one_thing_is_one() -> None:
    assert arguments_hash(([1, 2],), {}) == arguments_hash(((1, 2),), {}) == arguments_hash((deque([1, 2]),), {})
    plain = {"b": 1, "a": [math.nan]}
    assert arguments_hash((plain,), {}) == arguments_hash((OrderedDict(sorted(plain.items())),), {})
    assert arguments_hash((plain,), {}) == arguments_hash((MappingProxyType(plain),), {})
    assert arguments_hash((b"x",), {}) == arguments_hash((bytearray(b"x"),), {})


def test_how_a_call_is_made_and_whose_key_it_shows_is_not_what_is_asked() -> None:
    assert arguments_hash((Request("a", "k1"),), {}) == arguments_hash((Request("a", "k2"),), {})
    assert arguments_hash((), {"idempotency_key": "1", "on_delta": print}) == arguments_hash((), {})
    one, other = Options(model="m", api_key=SecretStr("1")), Options(model="m", api_key=SecretStr("2"))
    assert arguments_hash((one,), {}) == arguments_hash((other,), {})
    assert arguments_hash((one,), {}) != arguments_hash((Options(model="n"),), {})


REQUEST = ChatRequest(({"role": "user", "content": "why"},), "m", 0.0, 10, 1, 60.0, "key", {"stop": ["x"]})


@pytest.mark.parametrize(
    "change",
    [
        {"messages": ({"role": "user", "content": "how"},)}, {"messages": ({"role": "system", "content": "why"},)},
        {"model": "n"}, {"temperature": 1.0}, {"temperature": None}, {"max_tokens": 11}, {"seed": 2},
        {"extra": {"stop": ["y"]}}, {"extra": {}},
    ],
)  # fmt: skip
def test_a_changed_request_to_a_chat_model_is_another(change: dict[str, Any]) -> None:
    assert arguments_hash((REQUEST,), {}) == arguments_hash((replace(REQUEST, idempotency_key="other"),), {})
    assert arguments_hash((REQUEST,), {}) != arguments_hash((replace(REQUEST, **change),), {})


def test_what_a_function_brings_along_counts_as_well() -> None:
    client = object()

    def asks(question: str) -> Callable[..., Any]:
        async def ask() -> Any:
            return client, question

        return ask

    def with_default(question: str) -> Callable[..., Any]:
        return lambda asked=question: fetch(asked)

    def with_partial(question: str) -> Callable[..., Any]:
        return partial(partial(fetch, question), "second")

    for kind in (asks, with_default, with_partial):
        assert arguments_hash((), {}, kind("a")) == arguments_hash((), {}, kind("a"))
        assert arguments_hash((), {}, kind("a")) != arguments_hash((), {}, kind("b"))


def test_what_cannot_be_compared_is_refused_with_what_to_do() -> None:
    class Client: ...

    holding_itself: list[Any] = []
    holding_itself.append(holding_itself)
    refused: list[Any] = [Client(), [].append, lambda: 1, iter([]), partial(fetch, 1)]
    for value in refused:
        with pytest.raises(RecordFailure, match="let its function hold clients"):
            arguments_hash(([value],), {})
    with pytest.raises(RecordFailure, match="holds itself"):
        arguments_hash(holding_itself, {})


def test_functions_and_classes_of_a_module_have_their_names() -> None:
    assert arguments_hash((fetch,), {}) == arguments_hash((fetch,), {})
    assert len({arguments_hash((each,), {}) for each in (fetch, shown, Kind, Options)}) == 4


def test_another_process_finds_the_same() -> None:
    program = (
        "from sage.runtime.journal.fingerprint import arguments_hash as h;"
        "print(h(({'b': {'x', 'y', 'z'}, 'a': 1.5}, 'text'), {'k': b'1'}))"
    )
    environ = {**os.environ, "PYTHONHASHSEED": "77"}
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environ)
    assert found.stdout.strip() == arguments_hash(({"a": 1.5, "b": {"z", "y", "x"}}, "text"), {"k": b"1"})
