"""``file``: records appended to a file, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sage.errors import RecordFailure, Unauthorized
from sage.model.record import Record
from sage.spec.component import Sink
from sage.spec.context import OpenContext
from sage_connectors.files.append_log import AppendLog
from sage_connectors.files.locate import expanded
from sage_connectors.terminal_sink import json_text


class FileSinkConfig(BaseModel):
    """Where the file is and what a line of it is."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(min_length=1, description="The file; it is made when missing, with its folders.")
    format: Literal["jsonl", "lines"] = Field(
        default="jsonl", description="jsonl: each value as JSON. lines: text as it is, anything else as JSON."
    )
    remember: int = Field(
        default=1_000_000,
        ge=1000,
        description="How many record ids are kept in PATH.ids, so that none is written twice.",
    )


class FileSink(Sink[Any]):
    """Appends one line a record; a batch is on the disk when ``write`` returns.

    Beside the file, ``PATH.ids`` keeps the ids of the records in it. A batch is announced there before it is
    appended, so that after a crash the next writer knows whether it got into the file whole, takes a torn one
    out again, and leaves out what is there already. Several processes may write to one file: they take turns.

    Raises (from ``write``):
        DiskFull: no space; the file is as it was before the batch.
        RecordFailure: format ``lines``, and a text holds a line end.
    """

    Config = FileSinkConfig
    local = True

    def __init__(self, config: FileSinkConfig) -> None:
        super().__init__(config)
        self.config: FileSinkConfig = config
        self._log = AppendLog(expanded(config.path), remember=config.remember)

    async def open(self, ctx: OpenContext) -> None:
        """Make the file where it is missing; see that it can be written.

        Raises:
            Unauthorized: it can't be written there.
            InvalidTopology: it is a pipe or device.
        """
        try:
            await asyncio.to_thread(self._log.open)
        except OSError as error:
            raise Unauthorized(
                f"this file can't be written: {error.strerror}; choose another path", where=self.config.path
            ) from None

    async def write(self, records: Sequence[Record[Any]]) -> None:
        """Append the records that are not in the file yet."""
        await asyncio.to_thread(self._log.append, [(record.id, self._line(record)) for record in records])

    async def close(self) -> None:
        """Release the file."""
        await asyncio.to_thread(self._log.close)

    def _line(self, record: Record[Any]) -> bytes:
        value = record.value
        if self.config.format == "jsonl" or not isinstance(value, str):
            return json_text(value).encode() + b"\n"
        if "\n" in value:
            raise RecordFailure(
                "the text holds a line end, which a file of lines can't; use format: jsonl", where=self.config.path
            )
        return value.encode() + b"\n"
