"""Chat models and embedders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from sage.model.documents import Message, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat call. ``timeout`` in seconds for the whole answer."""

    messages: tuple[Message, ...]
    model: str
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    timeout: float = 60.0
    idempotency_key: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """A finished answer. ``model`` is what the service says it was."""

    text: str
    model: str
    usage: Usage
    finish_reason: str = "stop"
    id: str = ""


class ChatModel(Protocol):
    """A chat service.

    ``complete`` raises Unreachable (nobody answers), Unauthorized, NotFound (unknown model), RateLimited,
    TransientFailure (time-out, 5xx) or RecordFailure (this request is refused: too long, malformed).
    """

    async def complete(
        self, request: ChatRequest, *, on_delta: Callable[[str], Awaitable[None]] | None = None
    ) -> ChatResponse: ...

    async def close(self) -> None: ...


@runtime_checkable
class Checkable(Protocol):
    """A chat model that can say before the first record whether it will be of use."""

    async def check(self, model: str) -> None:
        """Return if the service is there, takes the key and knows the model, as far as can be told cheaply.

        Raises Unreachable, Unauthorized or NotFound.
        """
        ...


class Embedder(Protocol):
    """Texts to unit vectors."""

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...

    def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> NDArray[np.float32]:
        """A float32 array of shape (len(texts), dim)."""
        ...
