from __future__ import annotations

from typing import Any, cast

import pytest
from pydantic import ValidationError

from sage.errors import DimensionMismatch, IndexFilterMissing, MemoryFailure, NotFound
from sage.llm.embedders import MockTextEmbedder
from sage.memory import InMemoryVectorStore, MemoryManager
from sage.operators import Embedder, MemoryWriter, TextSplitter
from sage.spec.context import Context
from tests.support.operator_contexts import open_context, process

NONE = cast(Context, None)


class Counting(MockTextEmbedder):
    def __init__(self) -> None:
        super().__init__(32)
        self.texts: list[str] = []

    def encode(self, texts: Any, *, kind: Any = "passage") -> Any:
        self.texts += texts
        return super().encode(texts, kind=kind)


@pytest.fixture
def embedder() -> Counting:
    return Counting()


@pytest.fixture
def memory(embedder: Counting) -> MemoryManager:
    return MemoryManager(store=InMemoryVectorStore(), load_embedder=lambda name: embedder)


async def opened(memory: MemoryManager, **config: Any) -> MemoryWriter:
    writer = MemoryWriter(MemoryWriter.Config(**{"collection": "handbook"} | config))
    await writer.open(open_context(memory))
    return writer


def page(*paragraphs: str, path: str = "leave.md") -> list[dict[str, Any]]:
    text = "\n\n".join(f"# Part {n}\n\n{words}" for n, words in enumerate(paragraphs))
    return list(TextSplitter().process({"path": path, "text": text}, NONE))


def outcomes(written: list[dict[str, Any]]) -> list[str]:
    return [one["stored"] for one in written]


def texts(memory: MemoryManager) -> dict[str, str]:
    rows = [row for batch in memory.connect_collection("handbook").scan() for row in batch]
    return {row.id: row.text.partition("\n\n")[2] for row in rows}


async def test_passages_are_stored_and_the_collection_made(memory: MemoryManager) -> None:
    writer = await opened(memory, embedding="mock/32")
    written = await process(writer, page("one", "two"))
    assert outcomes(written) == ["added", "added"]
    assert written[0]["id"] == "leave.md#0"
    assert "vector" not in written[0]
    assert texts(memory) == {"leave.md#0": "one", "leave.md#1": "two"}
    hit = memory.connect_collection("handbook").retrieve("two", top_k=1, with_metadata=True, filter={"chunk": 1})[0]
    assert hit["metadata"] == {"source": "leave.md", "chunk": 1, "chunks": 2, "heading": "Part 1"}


async def test_writing_a_document_twice_changes_and_embeds_nothing(memory: MemoryManager, embedder: Counting) -> None:
    memory.create_collection("handbook", embedding_model=embedder)
    writer = await opened(memory)
    await process(writer, page("one", "two"))
    embedder.texts.clear()
    for again in (writer, await opened(memory)):
        assert outcomes(await process(again, page("one", "two"))) == ["unchanged", "unchanged"]
    assert embedder.texts == []
    assert len(texts(memory)) == 2


async def test_a_changed_document_replaces_its_passages_and_no_others(
    memory: MemoryManager, embedder: Counting
) -> None:
    memory.create_collection("handbook", embedding_model=embedder)
    writer = await opened(memory)
    await process(writer, page("one", "two", "three") + page("other", path="leave.md.bak"))
    embedder.texts.clear()
    written = await process(writer, page("one", "TWO"))
    assert outcomes(written) == ["updated", "updated"], "the first for its count of passages"
    assert embedder.texts == ["Part 1\n\nTWO"], "a text that stayed keeps its vector"
    assert texts(memory) == {"leave.md#0": "one", "leave.md#1": "TWO", "leave.md.bak#0": "other"}


async def test_a_document_without_text_is_deleted(memory: MemoryManager) -> None:
    writer = await opened(memory, embedding="mock/32")
    await process(writer, page("one", "two") + page("other", path="b.md"))
    assert outcomes(await process(writer, page(path="leave.md"))) == ["empty"]
    assert texts(memory) == {"b.md#0": "other"}


async def test_old_and_new_in_one_batch_end_with_the_new(memory: MemoryManager) -> None:
    writer = await opened(memory, embedding="mock/32")
    both = page("one", "two", "three") + page("ONE")
    assert outcomes(await process(writer, both)) == ["added", "added", "added", "updated"]
    assert texts(memory) == {"leave.md#0": "ONE"}


async def test_much_longer_earlier_versions_are_deleted_whole(memory: MemoryManager) -> None:
    writer = await opened(memory, embedding="mock/32")
    await process(writer, page(*[f"part {n}" for n in range(300)]))
    await process(writer, page("one"))
    assert texts(memory) == {"leave.md#0": "one"}


async def test_replacing_can_be_turned_off(memory: MemoryManager) -> None:
    writer = await opened(memory, embedding="mock/32", replace=False)
    await process(writer, page("one", "two"))
    await process(writer, page("ONE"))
    assert texts(memory) == {"leave.md#0": "ONE", "leave.md#1": "two"}


async def test_a_batch_that_failed_half_way_can_be_written_again(memory: MemoryManager) -> None:
    writer = await opened(memory, embedding="mock/32")
    bad = [*page("one", "two"), {"id": "x", "text": "words", "metadata": {}, "vector": [1.0]}]
    with pytest.raises(DimensionMismatch):
        await process(writer, bad)
    assert outcomes(await process(writer, bad[:2])) == ["unchanged", "unchanged"]


async def test_vectors_that_come_along_are_used(memory: MemoryManager, embedder: Counting) -> None:
    memory.create_collection("handbook", embedding_model=embedder)
    model = Embedder(Embedder.Config(model="mock/32"))
    await model.open(open_context(memory))
    writer = await opened(memory)
    await process(writer, await process(model, page("one", "two")))
    assert embedder.texts == []
    assert memory.connect_collection("handbook").retrieve("two", top_k=1) == ["Part 1\n\ntwo"]


async def test_records_without_an_id_are_named_by_their_content(memory: MemoryManager) -> None:
    writer = await opened(memory, embedding="mock/32")
    first = await writer.process({"text": "a", "metadata": {"x": 1}}, NONE)
    assert first["stored"] == "added"
    assert await writer.process({"text": "a", "metadata": {"x": 1}}, NONE) == {**first, "stored": "unchanged"}
    assert (await writer.process("bare text", NONE))["stored"] == "added"
    assert len(texts(memory)) == 2


async def test_records_that_cannot_be_stored_are_refused(memory: MemoryManager, embedder: Counting) -> None:
    memory.create_collection("handbook", embedding_model=embedder).add_metadata_field("year", int)
    writer = await opened(memory)
    with pytest.raises(KeyError, match="text") as caught:
        await process(writer, [{"query": "x"}])
    assert "the record has: query" in caught.value.__notes__
    with pytest.raises(TypeError, match="metadata is a list"):
        await process(writer, [{"text": "x", "metadata": ["y"]}])
    with pytest.raises(MemoryFailure, match="'year' is declared int"):
        await process(writer, [{"text": "x", "metadata": {"year": "2024"}}])


async def test_an_index_made_with_a_function_is_named_and_others_can_be_chosen(memory: MemoryManager) -> None:
    store = memory.vectors
    made = memory.create_collection("handbook", embedding_model="mock/32")
    made.create_index("english", metadata_filter_func=lambda m: m.get("lang") == "en")
    made.create_index("all")
    other = MemoryManager(store=store)
    writer = await opened(other)
    with pytest.raises(IndexFilterMissing, match="'english'"):
        await process(writer, page("one"))
    chosen = await opened(other, indexes=["all"])
    await process(chosen, page("one"))
    assert made.retrieve("one", index_name="all") == ["Part 0\n\none"]


async def test_what_is_missing_is_found_out_before_the_first_record(memory: MemoryManager) -> None:
    with pytest.raises(NotFound, match="'handbook' does not exist"):
        await opened(memory, create=False)
    memory.create_collection("handbook", embedding_model="mock/32")
    with pytest.raises(NotFound, match="index 'all'"):
        await opened(memory, indexes=["all"])


async def test_closing_flushes(memory: MemoryManager) -> None:
    writer = await opened(memory, embedding="mock/32")
    await writer.close()
    await MemoryWriter(MemoryWriter.Config(collection="never-opened")).close()


def test_options_are_checked() -> None:
    with pytest.raises(ValidationError):
        MemoryWriter.Config.model_validate({})
    with pytest.raises(ValidationError):
        MemoryWriter.Config.model_validate({"collection": "c", "colection": "d"})
