"""What an operator is opened with in unit tests: services over real, in-process parts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

from sage.llm.embedders import load_embedder
from sage.memory import MemoryManager
from sage.ports import ChatModel, Embedder
from sage.spec.context import Context, OpenContext, Services, StepScope


class LocalServices:
    """``Services`` with a memory and embedders; no chat model."""

    def __init__(self, memory: MemoryManager, embedding: str = "mock/32") -> None:
        self._memory = memory
        self._embedding = embedding

    @property
    def memory(self) -> MemoryManager:
        """The memory."""
        return self._memory

    def embedder(self, name: str | None = None) -> Embedder:
        """The embedder of that name, or the default."""
        return load_embedder(name or self._embedding)

    def chat_model(self, step: str, **options: Any) -> ChatModel:
        """There is none."""
        raise AssertionError(f"step {step} asked for a chat model")


def open_context(memory: MemoryManager, *, embedding: str = "mock/32") -> OpenContext:
    """What ``open`` is given."""
    return OpenContext("test", "step", LocalServices(memory, embedding))


def record_context(opened: OpenContext) -> Context:
    """What ``process`` is given."""
    return Context(StepScope(opened.topology, opened.step, opened.services, opened.logger))


async def process(operator: Any, values: Sequence[Any]) -> list[Any]:
    """What an operator makes of a batch, each record with a context of its own and without a journal."""
    scope = StepScope("test", "step", cast(Services, None), logging.getLogger("test"))
    return list(await operator.process_batch(values, [Context(scope) for _ in values]))
