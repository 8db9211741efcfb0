"""Models that say what they do in the trace of the record that they do it for.

Each wraps a port and is one itself, so that neither operators nor model clients know of tracing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal

from sage.ports import ChatModel, ChatRequest, ChatResponse, Embedder
from sage.tracing.generative import GenerativeSpan, chat, embeddings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TracedChatModel:
    """A chat model whose calls are ``chat MODEL`` spans.

    Args:
        inner: the model.
        provider: ``openai`` for all services that speak its protocol.
        server, port: where it answers, if known.
    """

    def __init__(
        self, inner: ChatModel, *, provider: str = "openai", server: str | None = None, port: int | None = None
    ) -> None:
        self._inner = inner
        self._provider = provider
        self._server = server
        self._port = port

    async def complete(
        self, request: ChatRequest, *, on_delta: Callable[[str], Awaitable[None]] | None = None
    ) -> ChatResponse:
        """As the model does; raises what it raises."""
        with chat(
            request.model,
            provider=self._provider,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            seed=request.seed,
            stream=on_delta is not None,
            server=self._server,
            port=self._port,
        ) as span:
            span.asked(request.messages)
            timed = None if on_delta is None else _timed(on_delta, span)
            response = await self._inner.complete(request, on_delta=timed)
            span.answered(response)
            return response

    async def close(self) -> None:
        """Close the model."""
        await self._inner.close()


class TracedEmbedder:
    """An embedder whose calls are ``embeddings MODEL`` spans, linked to all records of the micro-batch."""

    def __init__(self, inner: Embedder, *, provider: str = "sage") -> None:
        self._inner = inner
        self._provider = provider

    @property
    def name(self) -> str:
        """The embedder's name."""
        return self._inner.name

    @property
    def dim(self) -> int:
        """The length of its vectors."""
        return self._inner.dim

    def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> NDArray[np.float32]:
        """As the embedder does; raises what it raises."""
        with embeddings(self._inner.name, provider=self._provider, dimension=self._inner.dim):
            return self._inner.encode(texts, kind=kind)


def _timed(on_delta: Callable[[str], Awaitable[None]], span: GenerativeSpan) -> Callable[[str], Awaitable[None]]:
    """``on_delta``, noting when the first part came."""
    begun = time.monotonic()
    waiting = True

    async def timed(delta: str) -> None:
        nonlocal waiting
        if waiting:
            waiting = False
            span.first_chunk(time.monotonic() - begun)
        await on_delta(delta)

    return timed
