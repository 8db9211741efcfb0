"""Values to bytes and back."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from sage.errors import DecodeFailure, RecordFailure
from sage.runtime.steps.codec import BYTES_MARK, decoder, encode, handed_over, is_marked, names_a_model

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Question(BaseModel):
    text: str
    weight: int = 1


class Renamed(BaseModel):
    n: int = Field(alias="theN")


class RenamedOutside(Renamed):
    model_config = ConfigDict(serialize_by_alias=True)


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


@given(JSON)
def test_a_json_value_comes_back(value: Any) -> None:
    data = encode(value)
    assert (decoder("json")(data) if data is not None else None) == value


@given(st.text())
def test_text_on_a_topic_of_text_stands_there_without_quotes(value: str) -> None:
    data = encode(value, "str")
    assert data == value.encode()
    assert decoder("str")(data) == value


@given(st.binary(), st.sampled_from(["json", "str", "bytes"]))
def test_bytes_stay_bytes(value: bytes, written: str) -> None:
    assert encode(value, written) == value
    assert decoder("bytes")(value) == value


def test_nothing_is_kafkas_null_in_every_format() -> None:
    assert [encode(None, written) for written in ("json", "str", "bytes")] == [None, None, None]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Question(text="a"), b'{"text":"a","weight":1}'),
        ([Question(text="a")], b'[{"text":"a","weight":1}]'),
        (Point(1, 2), b'{"x":1,"y":2}'),
        ((1, 2), b"[1,2]"),
        ({3, 1, 2}, b"[1,2,3]"),
        (frozenset({"b", "a"}), b'["a","b"]'),
        (np.float32(0.5), b"0.5"),
        (np.array([1, 2]), b"[1,2]"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), b'"2026-01-02T03:04:05+00:00"'),
        (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Colour.RED, b'"red"'),
        (math.nan, b"null"),
    ],
)
def test_what_has_a_json_form_is_written_in_it(value: Any, written: bytes) -> None:
    assert encode(value) == written


@pytest.mark.parametrize("value", [object(), {"a": b"x"}, {1: "x"}, 2**64, "\ud800", {"a": lambda: 1}, 1j])
def test_what_has_none_fails_the_record(value: Any) -> None:
    with pytest.raises(RecordFailure, match="has no JSON form"):
        encode(value)


@pytest.mark.parametrize(
    ("value", "written", "holds"), [({}, "str", "text"), (3, "bytes", "bytes"), ("a", "bytes", "bytes")]
)
def test_a_topic_of_text_or_bytes_takes_nothing_else(value: Any, written: str, holds: str) -> None:
    with pytest.raises(RecordFailure, match=f"a {type(value).__name__}, and its topic holds {holds}"):
        encode(value, written)


@pytest.mark.parametrize(
    ("data", "place"), [(b"{broken", "byte 1"), (b"", "byte 0"), (b"[1,", "byte 3"), (b"\xff", "not JSON")]
)
def test_bytes_that_are_no_json_are_refused_with_the_place(data: bytes, place: str) -> None:
    with pytest.raises(DecodeFailure, match=place):
        decoder("json")(data)


def test_bytes_that_are_no_text_are_refused_with_the_place() -> None:
    with pytest.raises(DecodeFailure, match="not UTF-8: byte 2"):
        decoder("str")(b"ab\xff")


def test_a_model_that_the_receiver_names_is_made_and_checked() -> None:
    assert decoder("json", Question)(b'{"text":"a","weight":3}') == Question(text="a", weight=3)
    assert decoder("json", Point)(b'{"x":1,"y":2}') == Point(1, 2)
    assert decoder("json", list[Question])(b'[{"text":"a"}]') == [Question(text="a")]
    assert decoder("json", Question | None)(b'{"text":"a"}') == Question(text="a")
    with pytest.raises(DecodeFailure, match="weight: Input should be a valid integer"):
        decoder("json", Question)(b'{"text":"a","weight":"x"}')


@pytest.mark.parametrize("model", [Renamed, RenamedOutside])
def test_a_model_whose_fields_have_other_names_outside_crosses_an_edge_and_comes_from_outside(model: Any) -> None:
    crossed = encode(model(theN=3))
    assert crossed is not None
    assert decoder("json", model)(crossed) == model(theN=3)
    assert decoder("json", model)(b'{"theN":3}') == model(theN=3)
    assert handed_over(model(theN=3), model) == model(theN=3)


@pytest.mark.parametrize(
    ("annotation", "is_one"),
    [
        (Question, True), (Point, True), (list[Question], True), (dict[str, Point], True), (Question | None, True),
        (tuple[int, Question], True), (Sequence[Question], True), (Mapping[str, Point], True), (set[Point], True),
        (Iterable[Question], False), (Sequence[int], False), (dict, False), (dict[str, int], False),
        (str | None, False), (Any, False),
        (None, False), (int, False), (list[int], False),
    ],
)  # fmt: skip
def test_only_annotations_that_name_a_model_cost_a_validation(annotation: Any, is_one: bool) -> None:
    assert names_a_model(annotation) is is_one


@given(JSON | st.binary())
def test_a_fused_neighbour_gets_what_an_edge_would_give(value: Any) -> None:
    data = encode(value)
    over_an_edge = value if data is None or isinstance(value, bytes) else decoder("json")(data)
    assert handed_over(value, Any) == over_an_edge


@pytest.mark.parametrize(
    ("value", "wanted", "given_on"),
    [
        (Question(text="a"), Any, {"text": "a", "weight": 1}),
        (Question(text="a"), Question, Question(text="a")),
        ({"text": "a"}, Question, Question(text="a")),
        ((1, 2), Any, [1, 2]),
        ({2, 1}, Any, [1, 2]),
        (None, Question, None),
        (b"x", Question, b"x"),
    ],
)
def test_fusion_changes_nothing_about_models_and_tuples(value: Any, wanted: Any, given_on: Any) -> None:
    result = handed_over(value, wanted)
    assert result == given_on
    assert type(result) is type(given_on)


def test_what_cannot_cross_an_edge_cannot_be_handed_over_either() -> None:
    with pytest.raises(RecordFailure):
        handed_over(object(), Any)
    with pytest.raises(DecodeFailure):
        handed_over({"weight": 1}, Question)


def test_the_mark_of_plain_bytes_counts_as_the_last_header_only() -> None:
    assert is_marked([("a", b"1"), BYTES_MARK])
    assert not is_marked([BYTES_MARK, ("a", b"1")])
    assert not is_marked([])
    assert not is_marked(None)
