"""Memory that is only read: everything can be found, and nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage.errors import MemoryFailure
from sage.memory import MemoryManager
from sage.memory.in_memory import InMemoryVectorStore
from sage.memory.read_only import ReadOnlyVectorStore
from sage.ports import StoredVector
from sage.testing import MockTextEmbedder
from sage.wiring.folder_services import FolderServices
from sage.wiring.process_services import ProcessServices


@pytest.fixture
def filled() -> InMemoryVectorStore:
    store = InMemoryVectorStore()
    with MemoryManager(store=store, embedding=MockTextEmbedder(16)) as manager:
        manager.create_collection("handbook").insert("New staff get 20 days of leave.", {"page": "leave.md"})
    return store


def rows(store: InMemoryVectorStore) -> dict[str, list[Any]]:
    return {name: [row for batch in store.scan(name) for row in batch] for name in store.list()}


def test_what_is_there_is_found(filled: InMemoryVectorStore) -> None:
    with MemoryManager(store=filled, embedding=MockTextEmbedder(16), read_only=True) as manager:
        assert manager.list_collections() == ["handbook"]
        assert manager.describe_collection("handbook")["count"] == 1
        (found,) = manager.connect_collection("handbook").retrieve("leave", topk=3)
        manager.store_collection()
    assert "20 days" in str(found)


@pytest.mark.parametrize(
    "change",
    [
        lambda manager: manager.create_collection("other"),
        lambda manager: manager.delete_collection("handbook"),
        lambda manager: manager.rename_collection("handbook", "other"),
        lambda manager: manager.connect_collection("handbook").insert("More."),
        lambda manager: manager.connect_collection("handbook").create_index("pages"),
        lambda manager: manager.connect_collection("handbook").add_metadata_field("author"),
        lambda manager: manager.vectors.delete("handbook", ["x"]),
        lambda manager: manager.vectors.upsert("handbook", [StoredVector("x", [0.0] * 16, "x", {})]),
    ],
)
def test_nothing_is_changed(filled: InMemoryVectorStore, change: Callable[[MemoryManager], Any]) -> None:
    before = rows(filled)
    with (
        MemoryManager(store=filled, embedding=MockTextEmbedder(16), read_only=True) as manager,
        pytest.raises(MemoryFailure, match="this run only reads memory"),
    ):
        change(manager)
    assert rows(filled) == before


def test_the_services_of_a_run_that_only_reads_give_such_a_memory(
    filled: InMemoryVectorStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(MemoryManager, "_connected", lambda self: filled)
    for read_only in (True, False):
        services = ProcessServices(FolderServices(tmp_path), {"uri": "http://x:1"}, {}, read_only=read_only)
        assert isinstance(services.memory.vectors, ReadOnlyVectorStore) == read_only
