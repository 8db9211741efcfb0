"""``file``: rows or whole documents from files."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sage.errors import NotFound, Unauthorized
from sage.model.duration import Duration
from sage.model.json import Json
from sage.spec.component import Source
from sage.spec.context import OpenContext
from sage_connectors.files.blocks import Reading, lines
from sage_connectors.files.following import Following, follow
from sage_connectors.files.locate import Found, is_glob, locate
from sage_connectors.files.place import Place
from sage_connectors.files.rows import ROWS, in_threads

_NOT_CUT_BY_BYTES = ("utf-16", "utf-32", "utf_16", "utf_32", "utf16", "utf32")


class FileSourceConfig(BaseModel):
    """Where the files are and what is in them."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        min_length=1, description="A file, or a glob such as logs/**/*.jsonl; for documents also a folder."
    )
    format: Literal["lines", "jsonl", "csv", "document"] = Field(
        default="lines",
        description="lines: each line that is not blank, as text. jsonl: each line's JSON value. csv: each row as an "
        "object with the names of the first row. document: each file as {path, text}.",
    )
    follow: bool = Field(default=False, description="Go on with files that grow, and with new ones of the glob.")
    encoding: str = Field(default="utf-8", description="How the text is encoded; a UTF-8 byte order mark is skipped.")
    delimiter: str = Field(default=",", min_length=1, max_length=1, description="Between the fields of a CSV row.")
    poll_interval: Duration = Field(default=0.25, description="Seconds between two looks at files that are followed.")

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        if value.lower().startswith(_NOT_CUT_BY_BYTES):
            raise ValueError(
                f"{value} can't be cut into lines byte by byte; convert it with `iconv -f {value} -t UTF-8`"
            )
        try:
            "".encode(value)
        except LookupError:
            raise ValueError(f"{value!r} is no encoding that Python knows") from None
        return value

    @model_validator(mode="after")
    def _followable(self) -> FileSourceConfig:
        if self.follow and self.format == "document":
            raise ValueError("a document is read whole; follow is for lines, jsonl and csv")
        return self


class FileSource(Source[Any]):
    """Rows of files, in the order of their names, or whole files.

    One task; its position names the file and the byte and line that were read last, so that a resumed run goes
    on there. Files are streamed: a large one takes no more memory than a small one. A file that is followed and
    was truncated starts again; one that was rotated is finished first. While a file is followed a last line
    without a line end waits for its end; otherwise it counts as a line.

    Raises (from ``open`` and ``read``):
        NotFound: nothing is at the path, or nothing matches the glob.
        DecodeFailure: a line is not text in the encoding, not JSON or not CSV; names file and line. The rows
            before it were given.
    """

    Config = FileSourceConfig
    local = True

    def __init__(self, config: FileSourceConfig) -> None:
        super().__init__(config)
        self.config: FileSourceConfig = config
        self._logger = logging.getLogger("sage.step")

    async def open(self, ctx: OpenContext) -> None:
        """Check that the files are there."""
        self._logger = ctx.logger
        for name in self._locate().passed_over:
            self._logger.warning("%s: passed over, its suffix is not one of text; name it by a glob to read it", name)

    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        """Rows after ``position``; without ``follow`` it ends at the end of the last file, bounded or not."""
        del task
        config = self.config
        if config.follow:
            async for items in follow(self._following(), position, bounded=bounded):
                for item in items:
                    yield item
            return
        done = Place.of(position)
        found = self._locate()
        for name in found.files:
            if name < done.file:
                continue
            start = done if name == done.file else Place(name)
            if config.format == "document":
                if start is not done:
                    yield await asyncio.to_thread(_document, name, found.root, config.encoding)
                continue
            with await asyncio.to_thread(_opened, name) as handle:
                size = os.fstat(handle.fileno()).st_size
                reading = Reading(handle, name, start.byte, start.line, limit=size, encoding=config.encoding)
                async for rows in in_threads(ROWS[config.format](reading, config.delimiter)):
                    for value, byte, line in rows:
                        yield value, {"file": name, "byte": byte, "line": line}

    def _locate(self) -> Found:
        config = self.config
        return locate(
            config.path, documents=config.format == "document", may_be_empty=config.follow and is_glob(config.path)
        )

    def _following(self) -> Following:
        config = self.config
        assert config.format != "document"
        return Following(
            config.path, ROWS[config.format], config.encoding, config.delimiter, config.poll_interval, self._logger
        )


def _opened(name: str) -> BinaryIO:
    try:
        return Path(name).open("rb")
    except FileNotFoundError:
        raise NotFound("the file went away while its source was reading", where=name) from None
    except PermissionError:
        raise Unauthorized("no permission to read this file; change its mode or its owner", where=name) from None


def _document(name: str, root: str, encoding: str) -> tuple[dict[str, Json], Json]:
    """One whole file as a record, and the position after it."""
    with _opened(name) as handle:
        texts = [line.text for line in lines(Reading(handle, name, encoding=encoding))]
        size = handle.tell()
    path = Path(name).relative_to(root).as_posix() if Path(name).is_relative_to(root) else name
    return {"path": path, "text": "\n".join(texts) + "\n"}, {"file": name, "byte": size, "line": len(texts)}
