"""``collect``: a list that fills while the topology runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sage.model.record import Record
from sage.spec.component import Sink


class CollectSinkConfig(BaseModel):
    """Where the values go."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    into: Any = Field(default=None, description="The list to append to; a new one when it is not given.")


class CollectSink(Sink[Any]):
    """Appends values to ``values``, each record once."""

    Config = CollectSinkConfig
    local = True

    def __init__(self, config: CollectSinkConfig | None = None) -> None:
        super().__init__(config)
        self.values: list[Any] = [] if self.config.into is None else self.config.into
        self._seen: set[str] = set()

    async def write(self, records: Sequence[Record[Any]]) -> None:
        """Append the values of records that are not there yet."""
        for record in records:
            if record.id and record.id in self._seen:
                continue
            self._seen.add(record.id)
            self.values.append(record.value)
