"""``collection``: values that the program has in hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sage.model.json import Json
from sage.spec.component import Source


class CollectionSourceConfig(BaseModel):
    """The values."""

    model_config = ConfigDict(extra="forbid")

    values: Any = Field(
        default=(), description="The values, in order; each becomes one record. A Record sets key and time too."
    )

    @field_validator("values")
    @classmethod
    def _in_hand(cls, value: Any) -> Any:
        if isinstance(value, str | bytes):
            raise ValueError("one text is not a collection; write a list with it")
        try:
            return value if isinstance(value, list | tuple) else list(value)  # an iterator could be read only once
        except TypeError:
            raise ValueError(f"a {type(value).__name__} can't be iterated") from None


class CollectionSource(Source[Any]):
    """The given values. The position is how many were given."""

    Config = CollectionSourceConfig
    local = True

    def __init__(self, config: CollectionSourceConfig | None = None) -> None:
        super().__init__(config)

    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        """Values after ``position``; ends after the last, bounded or not."""
        del task, bounded
        start = position if isinstance(position, int) else 0
        values = self.config.values
        for index in range(start, len(values)):
            yield values[index], index + 1
