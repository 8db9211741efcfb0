from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sage.errors import DimensionMismatch, IndexFilterMissing, MemoryFailure, NotFound
from sage.llm.embedders import MockTextEmbedder
from sage.memory import InMemoryVectorStore, MemoryManager, VDBMemoryCollection

TEXTS = ["annual leave is 20 days", "sick leave needs a note", "the canteen opens at noon", "停车场在地下"]


def filled(collection: VDBMemoryCollection) -> list[str]:
    langs = ["en", "en", "en", "zh"]
    return collection.insert_many(TEXTS, [{"lang": lang, "n": n} for n, lang in enumerate(langs)])


def test_an_inserted_text_is_found_with_its_metadata(collection: VDBMemoryCollection) -> None:
    ids = filled(collection)
    assert collection.retrieve("annual leave days", topk=1) == [TEXTS[0]]
    hits = collection.retrieve("annual leave days", top_k=2, with_metadata=True)
    assert hits[0]["id"] == ids[0]
    assert hits[0]["metadata"] == {"lang": "en", "n": 0}
    assert hits[0]["score"] > hits[1]["score"]
    assert collection.count() == 4


def test_the_same_text_with_the_same_metadata_is_one_memory(collection: VDBMemoryCollection) -> None:
    first = collection.insert("a text", {"x": 1, "y": 2})
    assert collection.insert("a text", {"y": 2, "x": 1}) == first
    assert collection.insert("a text", {"x": 2}) != first
    assert collection.count() == 2


def test_ids_and_vectors_of_ones_own_are_kept(collection: VDBMemoryCollection) -> None:
    vector = np.zeros(32, dtype=np.float32)
    vector[3] = 1
    assert collection.insert_many(["a"], ids=["mine"], vectors=np.stack([vector])) == ["mine"]
    assert list(collection.get(["mine"])[0].vector) == vector.tolist()
    collection.insert_many(["b"], ids=["mine"])
    assert [row.text for row in collection.get(["mine"])] == ["b"]


@pytest.mark.parametrize("wrong", [{"metadata": [{}]}, {"ids": ["x"]}, {"vectors": []}])
def test_lists_of_another_length_are_refused(collection: VDBMemoryCollection, wrong: dict[str, Any]) -> None:
    with pytest.raises(MemoryFailure, match="2 texts, and"):
        collection.insert_many(["a", "b"], **wrong)


def test_more_than_one_batch_is_embedded_and_stored(collection: VDBMemoryCollection) -> None:
    ids = collection.insert_many([f"text {n}" for n in range(600)])
    assert len(set(ids)) == collection.count() == 600


def test_update_keeps_the_id_and_what_is_not_given(collection: VDBMemoryCollection) -> None:
    ident = collection.insert("old words", {"lang": "en"})
    assert collection.update(ident, "new words") == ident
    assert collection.retrieve("new words", with_metadata=True)[0]["metadata"] == {"lang": "en"}
    collection.update(ident, metadata={"lang": "zh"})
    row = collection.get([ident])[0]
    assert (row.text, row.metadata) == ("new words", {"lang": "zh"})
    assert collection.retrieve("new words", with_metadata=True)[0]["score"] == pytest.approx(1, abs=1e-5)
    with pytest.raises(NotFound, match="no memory with the id 'nobody'"):
        collection.update("nobody", "x")


def test_delete_by_id_and_by_filter(collection: VDBMemoryCollection) -> None:
    ids = filled(collection)
    assert collection.delete(ids[0]) == 1
    assert collection.delete([ids[0], ids[1]]) == 1
    assert collection.delete_where({"lang": "zh"}) == 1
    assert collection.delete_where('lang == "fr"') == 0
    assert collection.retrieve("anything") == [TEXTS[2]]


def test_declared_fields_are_held_to_their_types(collection: VDBMemoryCollection) -> None:
    collection.add_metadata_field("lang")
    collection.add_metadata_field("n", int)
    collection.add_metadata_field("n", "int")
    assert collection.metadata_fields == {"lang": "str", "n": "int"}
    with pytest.raises(MemoryFailure, match="'lang' is declared str; found int 3"):
        collection.insert_many(["fine", "not"], [{"lang": "en"}, {"lang": 3}])
    assert collection.count() == 0, "nothing of a refused batch is written"
    with pytest.raises(MemoryFailure, match="declared int already"):
        collection.add_metadata_field("n", str)


def test_a_filtered_index_holds_what_its_function_let_through_before_and_after(collection: VDBMemoryCollection) -> None:
    filled(collection)
    collection.create_index("english", metadata_filter_func=lambda m: m.get("lang") == "en")
    collection.insert("parental leave", {"lang": "en"})
    collection.insert("育儿假", {"lang": "zh"})
    found = collection.retrieve("leave", topk=20, index_name="english")
    assert sorted(found) == sorted([*TEXTS[:3], "parental leave"])


def test_an_index_without_filter_holds_everything(collection: VDBMemoryCollection) -> None:
    filled(collection)
    collection.create_index("all")
    collection.insert("later")
    assert len(collection.retrieve("x", topk=20, index_name="all")) == 5


@pytest.mark.parametrize("written", ['lang == "en"', {"lang": "en"}])
def test_a_filter_is_stored_and_never_lost(
    memory: MemoryManager, store: InMemoryVectorStore, collection: VDBMemoryCollection, written: Any
) -> None:
    filled(collection)
    collection.create_index("english", filter=written)
    other = MemoryManager(store=store).connect_collection("c")
    other.insert("more English", {"lang": "en"})
    other.insert("更多", {"lang": "zh"})
    assert sorted(other.retrieve("x", topk=20, index_name="english")) == sorted([*TEXTS[:3], "more English"])


def test_inserting_without_the_lost_function_names_the_index_and_writes_nothing(
    store: InMemoryVectorStore, collection: VDBMemoryCollection
) -> None:
    collection.create_index("english", metadata_filter_func=lambda m: m.get("lang") == "en")
    collection.create_index("all")
    other = MemoryManager(store=store).connect_collection("c")
    with pytest.raises(IndexFilterMissing, match="'english'"):
        other.insert("bonjour", {"lang": "fr"})
    with pytest.raises(IndexFilterMissing, match="'english'"):
        other.insert("bonjour", {"lang": "fr"}, "english")
    assert other.count() == 0
    other.insert("bonjour", {"lang": "fr"}, "all")
    assert other.retrieve("bonjour", index_name="all") == ["bonjour"]
    other.create_index("english", metadata_filter_func=lambda m: m.get("lang") == "fr")
    assert other.retrieve("bonjour", index_name="english") == ["bonjour"]
    collection.insert("hello", {"lang": "en"})


def test_named_indexes_are_the_only_ones_and_their_filters_still_hold(collection: VDBMemoryCollection) -> None:
    collection.create_index("all")
    collection.create_index("other")
    collection.create_index("english", filter={"lang": "en"})
    collection.insert("hello", {"lang": "en"}, "all", "english")
    collection.insert("你好", {"lang": "zh"}, "all", "english")
    assert sorted(collection.retrieve("x", index_name="all")) == ["hello", "你好"]
    assert collection.retrieve("x", index_name="english") == ["hello"]
    assert collection.retrieve("x", index_name="other") == []


def test_an_update_moves_a_memory_between_indexes(collection: VDBMemoryCollection) -> None:
    collection.create_index("english", filter={"lang": "en"})
    ident = collection.insert("hello", {"lang": "en"})
    collection.update(ident, metadata={"lang": "zh"})
    assert collection.retrieve("hello", index_name="english") == []


def test_an_index_made_again_is_decided_anew_and_one_deleted_is_gone(collection: VDBMemoryCollection) -> None:
    filled(collection)
    collection.create_index("some", filter={"lang": "en"})
    collection.create_index("some", filter={"lang": "zh"})
    assert collection.retrieve("x", index_name="some") == [TEXTS[3]]
    collection.delete_index("some")
    assert collection.indexes == []
    assert collection.count() == 4
    with pytest.raises(NotFound, match="'some'"):
        collection.delete_index("some")


def test_an_unknown_index_is_named_with_the_nearest(collection: VDBMemoryCollection) -> None:
    collection.create_index("english")
    for use in (
        lambda: collection.retrieve("x", index_name="englsh"),
        lambda: collection.search(["x"], index="englsh"),
        lambda: collection.insert("x", None, "englsh"),
    ):
        with pytest.raises(NotFound, match=r"index 'englsh' does not exist.*did you mean english"):
            use()


def test_an_index_made_by_another_process_is_seen(store: InMemoryVectorStore, collection: VDBMemoryCollection) -> None:
    other = MemoryManager(store=store).connect_collection("c")
    other.create_index("late", filter={"lang": "en"})
    collection.insert("hello", {"lang": "en"})
    assert collection.retrieve("hello", index_name="late") == ["hello"]


def test_both_kinds_of_filter_at_once_are_refused(collection: VDBMemoryCollection) -> None:
    with pytest.raises(MemoryFailure, match="not both"):
        collection.create_index("x", lambda m: True, {"lang": "en"})
    with pytest.raises(MemoryFailure, match="column"):
        collection.create_index("x", filter="lang ==")
    assert collection.indexes == []


def test_a_function_that_fails_is_named_with_what_it_was_given(collection: VDBMemoryCollection) -> None:
    collection.create_index("english", metadata_filter_func=lambda m: m["lang"] == "en")
    with pytest.raises(MemoryFailure, match="index 'english' failed with KeyError: 'lang'; the metadata has: n"):
        collection.insert("x", {"n": 1})
    with pytest.raises(MemoryFailure, match="retrieve failed with ZeroDivisionError"):
        filled(collection)
        collection.retrieve("x", metadata_filter_func=lambda m: 1 / 0)


def test_a_function_cannot_change_what_is_stored(collection: VDBMemoryCollection) -> None:
    collection.create_index("x", metadata_filter_func=lambda m: m.pop("lang") == "en")
    collection.insert("hello", {"lang": "en"})
    assert collection.retrieve("hello", with_metadata=True)[0]["metadata"] == {"lang": "en"}


def test_retrieve_with_a_function_looks_on_until_enough_pass(collection: VDBMemoryCollection) -> None:
    collection.insert_many([f"leave {n}" for n in range(200)], [{"n": n} for n in range(200)])
    found = collection.retrieve(
        "leave", topk=3, metadata_filter_func=lambda m: m["n"] >= 195, with_metadata=True, filter="n != 199"
    )
    assert len(found) == 3
    assert {hit["metadata"]["n"] for hit in found} <= {195, 196, 197, 198}
    assert collection.retrieve("leave", metadata_filter_func=lambda m: m["n"] == 7) == ["leave 7"]
    assert collection.retrieve("leave", metadata_filter_func=lambda m: False) == []


def test_search_takes_texts_or_vectors_and_answers_each(collection: VDBMemoryCollection) -> None:
    filled(collection)
    by_text = collection.search(["annual leave", "canteen noon"], top_k=1)
    by_vector = collection.search(MockTextEmbedder(32).encode(["annual leave", "canteen noon"], kind="query"), top_k=1)
    assert [hits[0]["text"] for hits in by_text] == [TEXTS[0], TEXTS[2]]
    assert by_text == by_vector
    assert collection.search([], top_k=1) == []
    assert [hits[0]["text"] for hits in collection.search(["x"], filter={"lang": "zh"})] == [TEXTS[3]]


def test_nonsense_is_refused(collection: VDBMemoryCollection) -> None:
    with pytest.raises(MemoryFailure, match="top_k is 0"):
        collection.retrieve("x", topk=0)
    with pytest.raises(DimensionMismatch):
        collection.search([[1.0, 2.0]])


def test_queries_and_passages_are_embedded_as_such(memory: MemoryManager) -> None:
    class Recording(MockTextEmbedder):
        def __init__(self) -> None:
            super().__init__(8)
            self.calls: list[tuple[int, str]] = []

        def encode(self, texts: Any, *, kind: Any = "passage") -> Any:
            self.calls.append((len(texts), kind))
            return super().encode(texts, kind=kind)

    embedder = Recording()
    collection = memory.create_collection("kinds", embedding_model=embedder)
    collection.insert_many(["a", "b"])
    collection.search(["a", "b", "c"])
    assert embedder.calls == [(2, "passage"), (3, "query")]
