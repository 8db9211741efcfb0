from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import MemoryFailure
from sage.memory.filter_text import as_text, parse
from sage.memory.filters import Compare, Contains, Exists, Field, Filter, Junction, Like, OneOf, matches, negated

METADATA: dict[str, Any] = {
    "lang": "en",
    "n": 3,
    "f": 2.5,
    "ok": True,
    "tags": ["x", 1],
    "author": {"name": "Ann", "a b": {"c": "deep"}},
    "none": None,
    "odd.name": "dotted",
}


@pytest.mark.parametrize(
    "text",
    [
        'lang == "en"',
        "lang == 'en'",
        'lang != "zh"',
        "n == 3.0 and f < 3 and f >= 2.5",
        'lang in ["de", "en"]',
        "n not in [1, 2]",
        'lang like "e%"',
        'lang like "%n"',
        'author.name == "Ann"',
        'metadata["author"]["a b"]["c"] == "deep"',
        'author["name"] == "Ann"',
        'metadata["odd.name"] == "dotted"',
        'contains(tags, "x") and JSON_CONTAINS(tags, 1)',
        "exists lang and not exists nothing",
        "none is null and lang is not null",
        "ok == true && !(ok == false)",
        'lang == "zh" or (n > 2 and not (n > 3))',
        'LANG is null AND lang == "en" OR false_field == 1',
        "n > -1 and n < 1e3",
        "",
        "  ",
    ],
)
def test_holds(text: str) -> None:
    assert matches(parse(text), METADATA)


@pytest.mark.parametrize(
    "text",
    [
        'lang == "EN"',
        'n == "3"',
        "lang > 1",
        "ok == 1",
        "n in []",
        'lang like "n%"',
        'author == "Ann"',
        'lang.name == "x"',
        'contains(lang, "e")',
        "not (n > 2 or nothing == 1)",
        'nothing == "x"',
        'nothing != "x"',
        "not (nothing == 1)",
        "nothing not in [1]",
        'nothing not like "x%"',
        "none != 1",
    ],
)
def test_does_not_hold(text: str) -> None:
    assert not matches(parse(text), METADATA)


@pytest.mark.parametrize(
    ("text", "column", "what"),
    [
        ("lang ==", 8, "expected a value"),
        ("lang = 3", 6, "cannot read"),
        ("== 3", 1, "expected a metadata field"),
        ("lang == en", 9, "in quotes"),
        ('lang == "en" lang', 14, "expected 'and', 'or' or the end"),
        ("(n == 1", 8, "expected '\\)'"),
        ("n in [1", 8, "expected ','"),
        ("n in 1", 6, "expected '\\['"),
        ("lang like 3", 11, "needs a text"),
        ("lang", 5, "comparison"),
        ("n is 3", 6, "'null'"),
        ('lang == "open', 9, "cannot read"),
        ("$meta == 1", 1, "cannot read"),
        ("metadata[3] == 1", 10, "in quotes"),
    ],
)
def test_what_cannot_be_read_says_where_and_what_fits(text: str, column: int, what: str) -> None:
    with pytest.raises(MemoryFailure, match=f"column {column}: .*{what}"):
        parse(text)


def test_a_mapping_is_equalities() -> None:
    text = as_text({"lang": "en", "n": [1, 3], "nothing": None, 'q"': "x"})
    assert text == (
        'metadata["lang"] == "en" and metadata["n"] in [1,3] and not exists metadata["nothing"] '
        'and metadata["q\\""] == "x"'
    )
    assert matches(parse(text), {"lang": "en", "n": 1, 'q"': "x"})
    assert as_text({}) is None
    assert as_text("") is None
    assert as_text(None) is None


def test_a_mapping_to_something_else_is_refused() -> None:
    with pytest.raises(MemoryFailure, match="'author' is compared with a dict"):
        as_text({"author": {"name": "Ann"}})


FIELDS = st.sampled_from([Field(("lang",)), Field(("n",)), Field(("tags",)), Field(("author", "name"))])
VALUES = st.one_of(st.text(max_size=4), st.integers(-5, 5), st.booleans())
LEAVES: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Compare, FIELDS, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), VALUES),
    st.builds(OneOf, FIELDS, st.lists(VALUES, max_size=3).map(tuple), st.booleans()),
    st.builds(Like, FIELDS, st.text("ab%", max_size=4), st.booleans()),
    st.builds(Contains, FIELDS, VALUES, st.booleans()),
    st.builds(Exists, FIELDS, st.booleans()),
)
TREES: st.SearchStrategy[Filter] = st.recursive(
    LEAVES,
    lambda inner: st.builds(Junction, st.sampled_from(["and", "or"]), st.lists(inner, max_size=3).map(tuple)),
    max_leaves=8,
)


@given(TREES)
def test_negating_twice_is_the_same_filter(tree: Filter) -> None:
    assert negated(negated(tree)) == tree


@given(TREES, st.dictionaries(st.sampled_from(["lang", "n", "tags"]), VALUES))
def test_nothing_passes_a_filter_and_its_opposite(tree: Filter, metadata: dict[str, Any]) -> None:
    assert not (matches(tree, metadata) and matches(negated(tree), metadata))


@given(st.text(max_size=30))
def test_any_text_is_a_filter_or_a_failure(text: str) -> None:
    try:
        parse(text)
    except MemoryFailure as error:
        assert "filter" in str(error)


@given(st.text(max_size=12))
def test_any_value_can_be_written_and_read_back(value: str) -> None:
    text = as_text({"v": value})
    assert text is not None
    assert matches(parse(text), {"v": value})
