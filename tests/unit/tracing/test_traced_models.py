from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from sage.errors import RateLimited
from sage.ports import ChatModel, ChatRequest, ChatResponse, Embedder
from sage.tracing.traced import TracedChatModel, TracedEmbedder
from tests.unit.tracing.spans import Message, Recorded, is_child

REQUEST = ChatRequest(({"role": "user", "content": "How many?"},), "local/smollm2", temperature=0.0, max_tokens=48)


class Parrot:
    closed = False

    async def complete(
        self, request: ChatRequest, *, on_delta: Callable[[str], Awaitable[None]] | None = None
    ) -> ChatResponse:
        if request.model == "busy":
            raise RateLimited("later")
        for part in ("20 ", "days."):
            if on_delta is not None:
                await on_delta(part)
        return ChatResponse("20 days.", request.model, {"input_tokens": 3, "output_tokens": 2})

    async def close(self) -> None:
        self.closed = True


class Ones:
    name = "ones"
    dim = 2

    def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> NDArray[np.float32]:
        return np.ones((len(texts), 2), np.float32)


async def test_a_call_is_in_the_trace_of_its_record() -> None:
    recorded = Recorded()
    model: ChatModel = TracedChatModel(Parrot(), server="127.0.0.1", port=18080)
    said: list[str] = []

    async def hear(delta: str) -> None:
        said.append(delta)

    work = recorded.tracer.process("t", Message(), group="g", step="generate")
    response = await model.complete(REQUEST, on_delta=hear)
    work.end()
    span = recorded.span("chat local/smollm2")
    assert response.text == "".join(said) == "20 days."
    assert is_child(span, recorded.span("process t"))
    found = dict(span.attributes or {})
    assert found["gen_ai.usage.input_tokens"] == 3
    assert found["gen_ai.request.max_tokens"] == 48
    assert found["server.port"] == 18080
    assert isinstance(found["gen_ai.response.time_to_first_chunk"], float)


async def test_failures_of_the_model_go_through() -> None:
    recorded = Recorded()
    work = recorded.tracer.process("t", Message(), group="g", step="generate")
    with pytest.raises(RateLimited):
        await TracedChatModel(Parrot()).complete(ChatRequest((), "busy"))
    work.end()
    assert dict(recorded.span("chat busy").attributes or {})["error.type"] == "RateLimited"


async def test_closing_closes_the_model() -> None:
    parrot = Parrot()
    await TracedChatModel(parrot).close()
    assert parrot.closed


def test_an_embedder_stays_what_it_is() -> None:
    recorded = Recorded()
    embedder: Embedder = TracedEmbedder(Ones())
    work = recorded.tracer.process("t", Message(), group="g", step="retrieve")
    assert embedder.encode(["a", "b"], kind="query").shape == (2, 2)
    work.end()
    assert (embedder.name, embedder.dim) == ("ones", 2)
    assert dict(recorded.span("embeddings ones").attributes or {})["gen_ai.embeddings.dimension.count"] == 2
    embedder.encode(["untraced"])
    assert len(recorded.spans) == 2
