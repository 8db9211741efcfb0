"""Documents to passages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sage.memory.ingest import chunk_id, content_id
from sage.operators.record import as_record, required
from sage.spec.component import Operator
from sage.spec.context import Context, OpenContext

if TYPE_CHECKING:
    from semantic_text_splitter import MarkdownSplitter
    from semantic_text_splitter import TextSplitter as PlainSplitter

_MARKDOWN = frozenset({".md", ".markdown", ".mdx"})
_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


class TextSplitter(Operator[str | Mapping[str, Any], dict[str, Any]]):
    """Cut a document into passages, at headings, paragraphs and sentences; use it in ``flatmap``.

    Takes a text, or a record with ``text`` and, where it has one, ``path`` (or ``source``, or ``id``) and
    ``metadata``. Gives for each passage ``{"id", "text", "metadata"}``. The metadata is the document's, with
    ``source`` (its name), ``chunk`` (the passage's place, from 0), ``chunks`` (how many there are) and, in
    Markdown, ``heading``: the headings above it, which also begin the passage's text. The id is
    ``<source>#<chunk>``.

    A document without any text gives one record with an empty text and ``chunks`` 0, which tells
    ``MemoryWriter`` to delete what it had of that document.
    """

    class Config(BaseModel):
        """How documents are cut."""

        model_config = ConfigDict(extra="forbid")

        size: int = Field(
            default=700, ge=20, le=16_000, description="Characters of a passage at most, its heading aside."
        )
        overlap: int = Field(
            default=0, ge=0, description="Characters at most that a passage repeats of the one before, in one section."
        )
        format: Literal["auto", "markdown", "text"] = Field(
            default="auto", description="auto: the record's own field format, else by the path's ending."
        )
        root: str | None = Field(
            default=None, description="A folder; sources below it are named relative to it, such as leave.md."
        )

        @model_validator(mode="after")
        def _overlap_below_size(self) -> TextSplitter.Config:
            if self.overlap >= self.size:
                raise ValueError(f"overlap {self.overlap} must be less than size {self.size}")
            return self

    _splitters: tuple[MarkdownSplitter, PlainSplitter] | None = None

    async def open(self, ctx: OpenContext) -> None:
        """Load the splitter."""
        self._load()

    def process(self, value: str | Mapping[str, Any], ctx: Context) -> Iterator[dict[str, Any]]:
        """The document's passages, in order.

        Raises:
            KeyError: the record has no ``text``.
            TypeError: it is not a text.
        """
        record: Mapping[str, Any] = {"text": value} if isinstance(value, str) else as_record(value)
        text = required(record, "text", hint="Is a document parser, or a source of documents, upstream?")
        if not isinstance(text, str):
            raise TypeError(f"text is a {type(text).__name__}, not a text")
        text = text.replace("\r\n", "\n")
        source = self._source(record) or content_id(text)
        pieces = list(self._pieces(text, self._format(record)))
        common = {**(record.get("metadata") or {}), "source": source, "chunk": 0, "chunks": len(pieces)}
        if not pieces:
            yield {"id": chunk_id(source, 0), "text": "", "metadata": common}
        for chunk, (heading, body) in enumerate(pieces):
            words = f"{heading}\n\n{body}" if heading and body else heading or body
            metadata = {**common, "chunk": chunk, **({"heading": heading} if heading else {})}
            yield {"id": chunk_id(source, chunk), "text": words, "metadata": metadata}

    def _format(self, record: Mapping[str, Any]) -> Literal["markdown", "text"]:
        asked = self.config.format
        if asked == "auto":
            asked = record.get("format") or asked
        if asked in {"markdown", "text"}:
            return "markdown" if asked == "markdown" else "text"
        name = str(record.get("path") or record.get("source") or "")
        return "markdown" if PurePath(name).suffix.lower() in _MARKDOWN else "text"

    def _source(self, record: Mapping[str, Any]) -> str:
        name = str(record.get("path") or record.get("source") or record.get("id") or "")
        if name and self.config.root is not None and record.get("path"):
            inside = PurePath(os.path.relpath(name, self.config.root))
            return inside.as_posix() if ".." not in inside.parts else name
        return name

    def _pieces(self, text: str, kind: str) -> Iterator[tuple[str, str]]:
        """(headings, body) of each passage."""
        markdown, plain = self._load()
        if kind == "text":
            yield from (("", chunk) for chunk in plain.chunks(text) if chunk.strip())
            return
        headings_only = []
        found = False
        for heading, body in _sections(text):
            if not body:
                headings_only.append(heading)
            for chunk in markdown.chunks(body):
                if chunk.strip():
                    found = True
                    yield heading, chunk
        if not found:
            yield from ((heading, "") for heading in headings_only[-1:])

    def _load(self) -> tuple[MarkdownSplitter, PlainSplitter]:
        if self._splitters is None:
            from semantic_text_splitter import MarkdownSplitter
            from semantic_text_splitter import TextSplitter as PlainSplitter

            size, overlap = self.config.size, self.config.overlap
            self._splitters = MarkdownSplitter(size, overlap), PlainSplitter(size, overlap)
        return self._splitters


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """(headings joined by `` > ``, body) of each Markdown section; headings inside code fences are code."""
    path: list[str] = []
    levels: list[int] = []
    body: list[str] = []
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark is not None and not fence:
            fence = mark[1]
        elif mark is not None and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
        heading = None if fence else _HEADING.match(line)
        if heading is None:
            body.append(line)
            continue
        if path or any(one.strip() for one in body):
            yield " > ".join(path), "\n".join(body).strip()
        while levels and levels[-1] >= len(heading[1]):
            levels.pop()
            path.pop()
        levels.append(len(heading[1]))
        path.append(heading[2].strip())
        body = []
    if path or any(one.strip() for one in body):
        yield " > ".join(path), "\n".join(body).strip()
