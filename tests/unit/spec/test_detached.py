"""Copies that no later change reaches."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from sage.spec.detached import detached

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


class Model(BaseModel):
    parts: list[int]


@dataclasses.dataclass
class Plain:
    parts: list[int]


def parts_of(value: Any) -> list[Any]:
    """Every list and mapping in it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(found for each in inner for found in parts_of(each))] if isinstance(value, dict | list) else []


@given(JSON)
def test_a_copy_is_equal_and_shares_nothing_that_can_change(value: Any) -> None:
    copy = detached(value)
    assert copy == value
    assert not {id(part) for part in parts_of(copy)} & {id(part) for part in parts_of(value)}


def test_models_and_data_classes_are_copied_too() -> None:
    for value in (Model(parts=[1]), Plain([1])):
        copy = detached([value])[0]
        value.parts.append(2)
        assert (type(copy), copy.parts) == (type(value), [1])


def test_what_can_not_be_copied_stays_as_it_is() -> None:
    lock = threading.Lock()
    assert detached({"lock": lock}) == {"lock": lock}
