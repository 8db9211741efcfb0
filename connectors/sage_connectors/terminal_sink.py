"""``terminal``: records on standard output, for people or for a pipe."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from sage.errors import StageStopped
from sage.model.record import Record
from sage.spec.component import Sink
from sage_connectors.recent_ids import RecentIds

REMEMBERED = 65_536
"""Record ids kept to print none twice; many times what one checkpoint covers."""

EXTRACTIVE = "extractive"
"""What stands in ``model`` where no model wrote the answer; people are told."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that a terminal obeys instead of showing: a model's answer must not move the cursor or set a title."""


class TerminalSinkConfig(BaseModel):
    """How records look."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["auto", "text", "jsonl"] = Field(
        default="auto",
        description="text: for people; questions with their answers and the passages these stand on. jsonl: one JSON "
        "value a line. auto: text on a terminal, jsonl in a pipe.",
    )


class TerminalSink(Sink[Any]):
    """Writes records to standard output, each once while this process lives, and flushes before they count as done.

    Raises (from ``write``):
        StageStopped: standard output takes nothing more (its reader has gone, its disk is full, the terminal was
            closed); the records are not committed.
    """

    Config: ClassVar[type[BaseModel]] = TerminalSinkConfig
    local = True

    def __init__(self, config: BaseModel | None = None) -> None:
        super().__init__(config)
        self._written = RecentIds(REMEMBERED)

    async def write(self, records: Sequence[Record[Any]]) -> None:
        """Print the records that were not printed before."""
        fresh = self._written.new(records)
        if not fresh:
            return
        text = "".join(self._line(record.value) + "\n" for record in fresh)
        await asyncio.to_thread(_print, text)  # a slow reader of the pipe must not hold up the other steps
        self._written.add(record.id for record in fresh)

    def _line(self, value: Any) -> str:
        wanted = self.config.format
        if wanted == "auto":
            wanted = "text" if sys.stdout.isatty() else "jsonl"
        if wanted == "jsonl":
            return _CONTROL.sub(_escaped, json_text(value))
        if isinstance(value, Mapping) and value.get("answer") is not None and "query" in value:
            return answer_text(value)
        return plain_text(value)


def json_text(value: Any) -> str:
    """``value`` as one line of JSON; models by their fields, bytes as text with escapes."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()


def plain_text(value: Any) -> str:
    """``value`` for people: text as it is, anything else as JSON, without characters that a terminal obeys."""
    return shown(value if isinstance(value, str) else json_text(value))


def answer_text(value: Mapping[str, Any]) -> str:
    """A question, its answer and the passages that it stands on."""
    passages = _passages(value)
    references = "".join(f"  [{shown(each)}]" for each in passages)
    answer = shown(str(value["answer"])).strip() or "(no answer)"
    if value.get("model") == EXTRACTIVE:
        references += "  (extractive: the passage's own words)"
    lines = [f"  Q  {_indented(shown(str(value['query'])).strip())}", f"  A  {_indented(answer)} {references}".rstrip()]
    lines += [
        f'       "{_indented(shown(str(each["quote"])).strip())}"' for each in _citations(value) if each.get("quote")
    ]
    return "\n".join(lines)


def shown(text: str) -> str:
    """``text`` without control characters other than tab and newline; each becomes the replacement character."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _indented(text: str) -> str:
    first, *more = text.split("\n")
    return "\n".join([first, *(f"     {line}".rstrip() for line in more)])


def _passages(value: Mapping[str, Any]) -> list[str]:
    """``leave.md#2  0.87`` for each cited document, or for each given one where the answer cites none."""
    documents = [each for each in value.get("documents") or () if isinstance(each, Mapping)]
    cited = {each.get("document_id") for each in _citations(value)}
    chosen = [each for each in documents if each.get("id") in cited] or documents
    return [_label(each) for each in chosen]


def _citations(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for each in value.get("citations") or () if isinstance(each, Mapping)]


def _label(document: Mapping[str, Any]) -> str:
    score = document.get("score")
    name = str(document.get("id", "?"))
    return f"{name}  {score:.2f}" if isinstance(score, int | float) else name


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _print(text: str) -> None:
    out = sys.stdout
    try:
        try:
            out.write(text)
        except UnicodeEncodeError:  # a terminal that is not UTF-8 gets escapes instead of nothing
            encoding = out.encoding or "ascii"
            out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        out.flush()
    except BrokenPipeError:
        _silence()
        raise StageStopped(
            "standard output was closed by its reader (a pipe into `head`, say); the last records are not committed"
            " and come again in the next run"
        ) from None
    except OSError as error:  # a full disk, a terminal that has gone: the records are innocent
        _silence()
        raise StageStopped(
            f"standard output can't be written: {error.strerror or error}; the last records are not committed and come "
            "again in the next run"
        ) from error


def _silence() -> None:
    """Let the interpreter's own flush at exit go nowhere, instead of failing a second time with a traceback."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
