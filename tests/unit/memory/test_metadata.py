from __future__ import annotations

import pytest

from sage.errors import MemoryFailure
from sage.memory.metadata import checked, type_name

FIELDS = {"source": "str", "year": "int", "score": "float", "ok": "bool", "tags": "list", "author": "dict"}


def test_what_is_declared_fits_and_the_rest_is_free() -> None:
    given = {"source": "x", "year": 3, "score": 1, "ok": True, "tags": ("a",), "author": {}, "other": [1, None]}
    assert checked(given, FIELDS, collection="c") == {**given, "tags": ["a"]}
    assert checked({"source": None}, FIELDS, collection="c") == {"source": None}
    assert checked(None, FIELDS, collection="c") == {}


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("source", 3, "int 3"),
        ("year", "2024", "str '2024'"),
        ("year", True, "bool True"),
        ("year", 1.5, "float 1.5"),
        ("score", False, "bool False"),
        ("ok", 1, "int 1"),
        ("tags", "a", "str 'a'"),
        ("author", [], "list"),
    ],
)
def test_another_type_is_refused_with_what_was_found(field: str, value: object, found: str) -> None:
    with pytest.raises(MemoryFailure, match=f"field '{field}' is declared {FIELDS[field]}; found {found}"):
        checked({field: value}, FIELDS, collection="c")


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(MemoryFailure, match="not JSON"):
        checked({"x": object()}, {}, collection="c")


def test_changes_to_the_original_do_not_reach_the_copy() -> None:
    given = {"tags": ["a"]}
    copy = checked(given, {}, collection="c")
    given["tags"].append("b")
    assert copy == {"tags": ["a"]}


def test_types_are_named() -> None:
    assert [type_name(one) for one in (str, int, "float", dict)] == ["str", "int", "float", "dict"]
    with pytest.raises(MemoryFailure, match="'bytes' is unknown; use one of str"):
        type_name(bytes)
