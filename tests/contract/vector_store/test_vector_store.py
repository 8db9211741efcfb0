"""What every vector store does."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sage.errors import DimensionMismatch, MemoryFailure, NotFound
from sage.memory.filter_text import parse
from sage.memory.filters import matches
from sage.ports import StoredVector, VectorStore


def row(id: str, vector: list[float], text: str = "", *indexes: str, **metadata: Any) -> StoredVector:
    return StoredVector(id, vector, text or f"text of {id}", metadata, indexes)


def found(store: VectorStore, filter_text: str) -> set[str]:
    hits = store.search("c", [[1.0, 1.0]], top_k=100, filter=filter_text)[0]
    return {hit.id for hit in hits}


@pytest.fixture
def filled(store: VectorStore) -> VectorStore:
    store.create("c", dim=2, description="a collection")
    store.upsert(
        "c",
        [
            row("east", [1, 0], "to the right", "all", "sides", lang="en", n=1, tags=["x", "y"]),
            row("north", [0, 2], "up", "all", lang="zh", n=2.5, author={"name": "Ann"}),
            row("north-east", [1, 1], "奖励:20 天", "all", lang="en", n=3, ok=True),
            row("west", [-1, 0], "to the left", "sides"),
        ],
    )
    return store


def test_a_collection_comes_is_listed_and_goes(store: VectorStore) -> None:
    assert not store.exists("my-docs")
    store.create("my-docs", dim=3)
    store.create("文档", dim=4)
    assert store.exists("my-docs")
    assert store.list() == ["my-docs", "文档"]
    assert (store.dim("my-docs"), store.dim("文档")) == (3, 4)
    assert store.count("my-docs") == 0
    store.drop("my-docs")
    store.drop("my-docs")
    assert store.list() == ["文档"]


def test_names_that_differ_only_in_punctuation_are_two_collections(store: VectorStore) -> None:
    store.create("a-b", dim=2)
    store.create("a_b", dim=2)
    store.create("a_u2d_b", dim=2)
    store.upsert("a-b", [row("1", [1, 0])])
    assert store.list() == ["a-b", "a_b", "a_u2d_b"]
    assert (store.count("a-b"), store.count("a_b"), store.count("a_u2d_b")) == (1, 0, 0)


def test_making_a_collection_twice_is_refused(store: VectorStore) -> None:
    store.create("c", dim=2)
    with pytest.raises(MemoryFailure, match="exists already"):
        store.create("c", dim=2)


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.upsert("missing", [row("1", [1, 0])]),
        lambda store: store.search("missing", [[1, 0]], top_k=1),
        lambda store: store.get("missing", ["1"]),
        lambda store: store.delete("missing", ["1"]),
        lambda store: store.count("missing"),
        lambda store: store.dim("missing"),
        lambda store: store.flush("missing"),
        lambda store: list(store.scan("missing")),
        lambda store: store.rename("missing", "other"),
    ],
)
def test_a_missing_collection_is_named(store: VectorStore, use: Any) -> None:
    with pytest.raises(NotFound, match="'missing'"):
        use(store)


def test_search_gives_the_nearest_by_cosine_best_first(filled: VectorStore) -> None:
    hits = filled.search("c", [[1, 0.1], [0, 5]], top_k=2)
    assert [[hit.id for hit in line] for line in hits] == [["east", "north-east"], ["north", "north-east"]]
    assert hits[1][0].score == pytest.approx(1.0, abs=1e-5)
    assert hits[1][1].score == pytest.approx(math.sqrt(0.5), abs=1e-5)
    assert hits[1][1].text == "奖励:20 天"
    assert hits[1][1].metadata == {"lang": "en", "n": 3, "ok": True}


def test_search_without_vectors_or_in_an_empty_collection_finds_nothing(store: VectorStore) -> None:
    store.create("c", dim=2)
    assert store.search("c", [], top_k=3) == []
    assert store.search("c", [[1, 0], [0, 1]], top_k=3) == [[], []]


def test_more_hits_than_rows_are_all_rows(filled: VectorStore) -> None:
    assert len(filled.search("c", [[1, 0]], top_k=1000)[0]) == 4


def test_an_index_holds_only_its_members(filled: VectorStore) -> None:
    assert [hit.id for hit in filled.search("c", [[1, 0]], top_k=5, index="sides")[0]] == ["east", "west"]
    assert filled.search("c", [[1, 0]], top_k=5, index="nobody's") == [[]]
    both = filled.search("c", [[1, 0]], top_k=5, index="all", filter='lang == "zh"')
    assert [hit.id for hit in both[0]] == ["north"]


@pytest.mark.parametrize(
    "text",
    [
        'lang == "en"',
        'lang != "en"',
        'not (lang == "en")',
        'lang in ["zh", "fr"]',
        'lang not in ["zh", "fr"]',
        "lang in []",
        "n > 1 and n <= 3",
        "n >= 2.5 or ok == true",
        "n == 1.0",
        "n != 1",
        'n == "1"',
        'lang > "en"',
        'lang like "e%"',
        'lang not like "e%"',
        "exists author",
        "not exists author",
        "lang is null",
        "n is not null",
        'author.name == "Ann"',
        'metadata["author"]["name"] == "Ann"',
        'author == "Ann"',
        'contains(tags, "x")',
        'not contains(tags, "z")',
        'nothing == "x" or lang == "zh"',
        'lang == "e\\"n"',
        'lang == "中\\\\文"',
        "",
    ],
)
def test_a_filter_means_the_same_everywhere(filled: VectorStore, text: str) -> None:
    rows = {one.id: one.metadata for batch in filled.scan("c") for one in batch}
    assert len(rows) == 4
    assert found(filled, text) == {key for key, metadata in rows.items() if matches(parse(text), metadata)}


def test_a_filter_finds_texts_with_quotes_and_backslashes(store: VectorStore) -> None:
    store.create("c", dim=2)
    values = ['say "hi"', "back\\slash", "it's", "tab\there", "中文", "line\nbreak"]
    store.upsert("c", [row(str(place), [1, 0], v=value) for place, value in enumerate(values)])
    for place, value in enumerate(values):
        import orjson

        assert found(store, f"v == {orjson.dumps(value).decode()}") == {str(place)}, value


def test_a_filter_that_cannot_be_read_says_where(filled: VectorStore) -> None:
    with pytest.raises(MemoryFailure, match="column 8"):
        filled.search("c", [[1, 0]], top_k=1, filter="lang == ")


def test_upsert_replaces_by_id_and_is_seen_at_once(filled: VectorStore) -> None:
    for turn in range(5):
        filled.upsert("c", [row("east", [0.5, turn], f"turn {turn}", "new", turn=turn)])
        assert filled.count("c") == 4
        got = filled.get("c", ["east"])[0]
        assert (got.text, got.metadata, got.indexes) == (f"turn {turn}", {"turn": turn}, ("new",))
        assert list(got.vector) == pytest.approx([0.5, turn])
        assert found(filled, f"turn == {turn}") == {"east"}


def test_of_one_id_twice_in_a_batch_the_last_counts(filled: VectorStore) -> None:
    filled.upsert("c", [row("same", [1, 0], "first"), row("same", [0, 1], "last")])
    assert filled.count("c") == 5
    assert [one.text for one in filled.get("c", ["same"])] == ["last"]


def test_get_keeps_the_order_asked_for_and_leaves_out_what_is_missing(filled: VectorStore) -> None:
    assert [one.id for one in filled.get("c", ["west", "nobody", "east"])] == ["west", "east"]
    assert filled.get("c", []) == []


def test_delete_says_how_many_there_were(filled: VectorStore) -> None:
    assert filled.delete("c", ["east", "nobody", "west"]) == 2
    assert filled.delete("c", ["east"]) == 0
    assert filled.count("c") == 2
    assert found(filled, "") == {"north", "north-east"}


def test_scan_gives_every_row_once_in_bounded_batches(filled: VectorStore) -> None:
    filled.upsert("c", [row(f"n{i:04}", [1, i], n=i) for i in range(2500)])
    batches = list(filled.scan("c", batch_size=400))
    ids = [one.id for batch in batches for one in batch]
    assert len(ids) == len(set(ids)) == filled.count("c") == 2504
    assert max(len(batch) for batch in batches) <= 400
    narrowed = [one.id for batch in filled.scan("c", filter="n < 2") for one in batch]
    assert sorted(narrowed) == ["east", "n0000", "n0001"]


def test_vectors_of_another_length_are_refused_with_both_lengths(filled: VectorStore) -> None:
    with pytest.raises(DimensionMismatch, match="2 numbers; found one of 3"):
        filled.upsert("c", [row("good", [1, 1]), row("bad", [1, 2, 3])])
    assert filled.get("c", ["good"]) == []
    with pytest.raises(DimensionMismatch, match="2 numbers; found one of 3"):
        filled.search("c", [[1, 2, 3]], top_k=1)


def test_rename_keeps_the_rows(filled: VectorStore) -> None:
    filled.create("taken", dim=2)
    with pytest.raises(MemoryFailure, match="'taken' exists"):
        filled.rename("c", "taken")
    filled.rename("c", "d")
    assert not filled.exists("c")
    assert filled.count("d") == 4
    assert filled.search("d", [[1, 0]], top_k=1)[0][0].id == "east"
    filled.upsert("d", [row("more", [1, 0])])
    assert filled.count("d") == 5


def test_flush_loses_nothing(filled: VectorStore) -> None:
    filled.flush("c")
    filled.upsert("c", [row("later", [1, 0])])
    filled.flush("c")
    assert filled.count("c") == 5


def test_a_made_again_collection_is_empty_and_may_have_another_length(filled: VectorStore) -> None:
    filled.drop("c")
    filled.create("c", dim=3)
    assert filled.count("c") == 0
    filled.upsert("c", [row("1", [1, 2, 3])])
    assert filled.search("c", [[1, 2, 3]], top_k=1)[0][0].id == "1"
