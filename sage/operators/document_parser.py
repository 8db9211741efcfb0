"""Files to text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sage.errors import DecodeFailure, NotFound, RecordFailure
from sage.operators.record import as_record, required
from sage.spec.component import Operator
from sage.spec.context import Context

_PLAIN = {".txt": "text", ".text": "text", ".md": "markdown", ".markdown": "markdown", ".mdx": "markdown"}
_HTML = frozenset({".html", ".htm", ".xhtml"})
SUPPORTED = (*_PLAIN, *sorted(_HTML), ".pdf")
"""The endings of files that can be read."""


class DocumentParser(Operator[str | Mapping[str, Any], dict[str, Any]]):
    """Read the text of a document: plain text, Markdown, HTML, and PDF.

    Takes a path, or a record with ``path``; a record that has ``text`` already is not read from disk again.
    Writes ``text`` and ``format`` (``text`` or ``markdown``: HTML becomes Markdown, so that its headings are
    kept). Every other field stays. PDF needs ``pip install "sage-streams[documents]"``.
    """

    class Config(BaseModel):
        """What is read."""

        model_config = ConfigDict(extra="forbid")

        encoding: str = Field(default="utf-8-sig", description="How text and HTML files are encoded.")
        max_bytes: int = Field(default=50_000_000, ge=1, description="Files over this size are refused.")

    blocking = True
    default_timeout = 60.0

    def process(self, value: str | Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """The record with ``path``, ``text`` and ``format``.

        Raises:
            KeyError: the record has no ``path``.
            RecordFailure: the file is missing, too large, or of a kind that is not supported.
            DecodeFailure: its content is not what its ending says.
            NotFound: the library for PDF is not installed.
        """
        record: dict[str, Any] = {"path": value} if isinstance(value, str) else as_record(value)
        path = str(required(record, "path", hint="Is a source of documents upstream?"))
        ending = PurePath(path).suffix.lower()
        if ending not in SUPPORTED:
            raise RecordFailure(
                f"{path}: files ending in {ending or 'nothing'} can't be read; these can: {', '.join(SUPPORTED)}"
            )
        if ending == ".pdf":
            return {**record, "path": path, "text": self._read(path, _pdf_text), "format": "text"}
        given = record.get("text")
        text = given if isinstance(given, str) else self._read(path, self._decoded)
        if ending in _HTML:
            return {**record, "path": path, "text": html_to_markdown(text), "format": "markdown"}
        return {**record, "path": path, "text": text, "format": _PLAIN[ending]}

    def _read(self, path: str, parse: Callable[[Path], str]) -> str:
        file = Path(path)
        try:
            size = file.stat().st_size
            if size > self.config.max_bytes:
                raise RecordFailure(f"{path}: {size:,} bytes, and max_bytes is {self.config.max_bytes:,}")
            return parse(file)
        except OSError as error:
            raise RecordFailure(f"{path}: cannot be read: {error.strerror or error}") from error

    def _decoded(self, file: Path) -> str:
        try:
            return file.read_text(encoding=self.config.encoding)
        except (UnicodeDecodeError, LookupError) as error:
            raise DecodeFailure(f"{file}: is not text in {self.config.encoding}: {error}") from error


def _pdf_text(file: Path) -> str:
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise NotFound(
            f'{file}: reading PDF needs pypdf, which is not installed; pip install "sage-streams[documents]"'
        ) from error
    try:
        pages = [page.extract_text().strip() for page in PdfReader(file).pages]
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # A broken file surfaces as any of these inside the library.
        raise DecodeFailure(f"{file}: is not a PDF that can be read: {type(error).__name__}: {error}") from error
    return "\n\n".join(page for page in pages if page)


def html_to_markdown(text: str) -> str:
    """The readable text of an HTML page, with its headings as Markdown and its paragraphs apart."""
    reader = _HtmlReader()
    reader.feed(text)
    reader.close()
    return reader.markdown()


class _HtmlReader(HTMLParser):
    """Collects text; a block begins a new line, and what people don't read is left out."""

    _SKIPPED = frozenset({"script", "style", "noscript", "template", "svg", "head", "nav", "footer"})
    _BLOCKS = frozenset({
        "p", "div", "section", "article", "main", "header", "ul", "ol", "li", "table", "tr", "pre", "blockquote",
        "h1", "h2", "h3", "h4", "h5", "h6", "br", "hr", "dl", "dt", "dd", "figure", "figcaption", "aside",
    })  # fmt: skip

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._skipped: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a block, a heading, or something to leave out."""
        if tag in self._SKIPPED:
            self._skipped.append(tag)
        if tag in self._BLOCKS:
            self._parts.append("\n\n")
        if tag in {"td", "th"}:
            self._parts.append(" ")
        if re.fullmatch("h[1-6]", tag):
            self._parts.append("#" * int(tag[1]) + " ")
        if tag == "li":
            self._parts.append("- ")

    def handle_endtag(self, tag: str) -> None:
        """Close it."""
        if tag in self._skipped:
            # Also what was left open inside it.
            del self._skipped[len(self._skipped) - 1 - self._skipped[::-1].index(tag) :]
        if tag in self._BLOCKS:
            self._parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        """Keep the words; line ends of the source mean nothing."""
        if not self._skipped:
            self._parts.append(re.sub(r"\s+", " ", data))

    def markdown(self) -> str:
        """What was collected, one blank line between blocks."""
        blocks = (re.sub(r" +", " ", block).strip() for block in "".join(self._parts).split("\n\n"))
        return "\n\n".join(block for block in blocks if block and block.strip("#- "))
