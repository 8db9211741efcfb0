from __future__ import annotations

import logging
from typing import Any, cast

import pytest
from pydantic import ValidationError

from sage.errors import DimensionMismatch, MemoryFailure, NotFound
from sage.llm.embedders import MockTextEmbedder
from sage.memory import InMemoryVectorStore, MemoryManager
from sage.operators import DenseRetriever
from sage.spec.context import Context, Services, StepScope
from tests.support.operator_contexts import open_context, process, record_context

TEXTS = ["annual leave is 20 days", "the canteen opens at noon", "停车场在地下"]


@pytest.fixture
def memory() -> MemoryManager:
    made = MemoryManager(store=InMemoryVectorStore(), embedding="mock/32")
    collection = made.create_collection("handbook")
    collection.create_index("english", filter={"lang": "en"})
    collection.insert_many(TEXTS, [{"lang": "en", "source": "leave.md"}, {"lang": "en"}, {"lang": "zh"}])
    return made


async def opened(memory: MemoryManager, **config: Any) -> DenseRetriever:
    operator = DenseRetriever(DenseRetriever.Config(**{"collection": "handbook"} | config))
    await operator.open(open_context(memory))
    return operator


async def test_documents_are_written_and_the_rest_is_left_alone(memory: MemoryManager) -> None:
    operator = await opened(memory, top_k=2)
    record = {"query": "annual leave days", "id": "q1", "documents": ["old"], "history": []}
    out = await operator.process(record, record_context(open_context(memory)))
    assert {key: out[key] for key in ("query", "id", "history")} == {
        "query": "annual leave days",
        "id": "q1",
        "history": [],
    }
    assert [set(document) for document in out["documents"]] == [{"id", "text", "score", "metadata"}] * 2
    best = out["documents"][0]
    assert (best["text"], best["metadata"]) == (TEXTS[0], {"lang": "en", "source": "leave.md"})
    assert best["score"] > out["documents"][1]["score"]
    assert record["documents"] == ["old"], "what came in stays as it was"


async def test_a_text_counts_as_a_query(memory: MemoryManager) -> None:
    operator = await opened(memory, topk=1)
    out = await operator.process("canteen noon", record_context(open_context(memory)))
    assert out["query"] == "canteen noon"
    assert [document["text"] for document in out["documents"]] == [TEXTS[1]]


async def test_a_batch_is_embedded_in_one_call_and_searched_in_one(memory: MemoryManager) -> None:
    class Counting(MockTextEmbedder):
        calls: list[int] = []  # noqa: RUF012

        def encode(self, texts: Any, *, kind: Any = "passage") -> Any:
            self.calls.append(len(texts))
            return super().encode(texts, kind=kind)

    memory.connect_collection("handbook", embedding_model=Counting(32))
    operator = await opened(memory, top_k=1)
    out = await process(operator, ["annual leave", {"query": "canteen"}, "停车场"])
    assert [one["documents"][0]["text"] for one in out] == TEXTS
    assert Counting.calls == [3]


async def test_filter_and_index_narrow_the_search(memory: MemoryManager) -> None:
    context = record_context(open_context(memory))
    for config in ({"filter": {"source": "leave.md"}}, {"filter": 'source == "leave.md"', "index": "english"}):
        operator = await opened(memory, **config)
        assert [one["text"] for one in (await operator.process("canteen", context))["documents"]] == [TEXTS[0]]
    operator = await opened(memory, index="english")
    assert len((await operator.process("停车场", context))["documents"]) == 2


@pytest.mark.parametrize("is_read", [True, False])
async def test_a_question_that_nothing_is_found_for_goes_to_the_empty_branch_if_somebody_reads_it(
    memory: MemoryManager, is_read: bool
) -> None:
    operator = await opened(memory, filter={"lang": "fr"})
    scope = StepScope(
        "test", "step", cast(Services, None), logging.getLogger("test"),
        read_branches=frozenset({"empty"} if is_read else ()),
    )  # fmt: skip
    ctx = Context(scope)
    (out,) = await operator.process_batch(["leave"], [ctx])
    assert out["documents"] == []
    assert (ctx.diverted, ctx.take_emitted()) == ((True, [("empty", out)]) if is_read else (False, None))


async def test_a_record_without_a_query_is_refused_with_its_fields(memory: MemoryManager) -> None:
    operator = await opened(memory)
    with pytest.raises(KeyError, match="query") as caught:
        await process(operator, [{"query": "fine"}, {"id": 1, "text": "x"}])
    assert "the record has: id, text" in caught.value.__notes__
    with pytest.raises(TypeError, match="query is a int"):
        await process(operator, [{"query": 3}])
    with pytest.raises(TypeError, match="not list"):
        await process(operator, [["a"]])


async def test_what_is_missing_is_found_out_before_the_first_record(memory: MemoryManager) -> None:
    with pytest.raises(NotFound, match=r"did you mean handbook.*sage memory ingest handbok docs/"):
        await opened(memory, collection="handbok")
    with pytest.raises(NotFound, match=r"index 'englsh'.*did you mean english"):
        await opened(memory, index="englsh")


async def test_an_embedder_that_does_not_fit_is_found_out_before_the_first_record() -> None:
    store = InMemoryVectorStore()
    MemoryManager(store=store, embedding="mock/16").create_collection("handbook")
    changed = MemoryManager(store=store, load_embedder=lambda name: MockTextEmbedder(17))
    with pytest.raises(DimensionMismatch, match="16 numbers"):
        await opened(changed)


@pytest.mark.parametrize("config", [{}, {"collection": "c", "topq": 1}, {"collection": "c", "top_k": 0}])
def test_options_are_checked(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DenseRetriever.Config(**config)


def test_a_filter_that_cannot_be_read_is_refused_with_the_options() -> None:
    with pytest.raises((ValidationError, MemoryFailure), match="column 8"):
        DenseRetriever.Config(collection="c", filter="lang ==")
