"""Vectors of a batch's texts: one call of the model, and journaled where a service is paid for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sage.llm.embedders.load import DEFAULT_EMBEDDER, is_service
from sage.operators.threads import Threads
from sage.spec.context import Context

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sage.ports import Embedder

WIRE_TYPE = "<f4"
"""How the numbers of a journaled vector are written: 4 bytes each, the same on every machine."""


class TextVectors:
    """Embeds the texts of records.

    A model in this process is simply run again after a crash. A service's vectors are kept by record in the step's
    journal, where it has one; those of a batch that are not there are asked for together. Where it has none, a warning
    says so once: a plan is made without a connection, and does not know the embedder that a collection was made with.

    Args:
        threads: where the model runs.
        kind: whether the texts are to be found, or what is looked for.
    """

    def __init__(self, model: Embedder, threads: Threads, kind: Literal["query", "passage"]) -> None:
        self._model = model
        self._threads = threads
        self._kind: Literal["query", "passage"] = kind
        self._is_service = is_service(model.name)
        self._has_warned = False

    async def of(self, texts: Sequence[str], contexts: Sequence[Context]) -> NDArray[np.float32]:
        """An array of shape (len(texts), dim).

        Args:
            contexts: of the records that the texts belong to, in the same order; read only for a service.

        Raises:
            SageError: what the model raises.
        """
        if not (texts and self._is_service):
            return await self._encoded(texts)
        if not all(ctx.is_journaled for ctx in contexts):
            self._warn(contexts[0])
            return await self._encoded(texts)
        import numpy as np

        request = _Request(self._encoded)
        asked = [
            ctx.call("embed", request.vector, text, model=self._model.name, kind=self._kind)
            for text, ctx in zip(texts, contexts, strict=True)
        ]
        return np.stack([np.frombuffer(data, WIRE_TYPE).astype(np.float32) for data in await asyncio.gather(*asked)])

    def _warn(self, ctx: Context) -> None:
        """At the first call, not when the step is opened: a writer whose records bring their vectors makes none."""
        if self._has_warned:
            return
        self._has_warned = True
        ctx.logger.warning(
            '%s step "%s": its texts are embedded by a service, %s, and it has no journal: calls whose records are not '
            "committed when it crashes are made, and paid for, again; write journal: true on the step (in Python "
            "journal=True)",
            ctx.topology, ctx.step, self._model.name,
        )  # fmt: skip

    async def _encoded(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return await self._threads.run(self._model.encode, texts, kind=self._kind)


class _Request:
    """Texts that are asked for in the same turn of the loop become one call of the model."""

    def __init__(self, encode: Callable[[Sequence[str]], Awaitable[NDArray[np.float32]]]) -> None:
        self._encode = encode
        self._texts: list[str] = []
        self._asking: asyncio.Task[NDArray[np.float32]] | None = None

    async def vector(self, text: str, *, model: str, kind: str) -> bytes:
        """The text's vector, as bytes; the model's name is part of what a journaled one belongs to."""
        del model, kind
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
            self._asking.add_done_callback(_seen)
        asking, place = self._asking, len(self._texts)
        self._texts.append(text)
        rows = await asyncio.shield(asking)  # one that is given up must not take the others along
        data: bytes = rows[place].astype(WIRE_TYPE).tobytes()
        return data

    async def _ask(self) -> NDArray[np.float32]:
        await asyncio.sleep(0)
        texts, self._texts, self._asking = self._texts, [], None
        return await self._encode(texts)


def _seen(asking: asyncio.Task[Any]) -> None:
    """All who asked may be gone: what it failed with is then nobody's."""
    if not asking.cancelled():
        asking.exception()


def embeds_with_service(model: str | None, memory: Mapping[str, Any]) -> bool:
    """Whether texts go to a service, as far as a plan can tell.

    Args:
        model: the embedder that a step names; ``None`` is the memory's default.
        memory: the topology's memory settings.
    """
    return is_service(str(model or (memory.get("embedding") or {}).get("model") or DEFAULT_EMBEDDER))
