"""The record of a question-answering pipeline, as operators take it: a text counts as ``{"query": text}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Never

from sage.model.documents import Message


def as_record(value: Any) -> dict[str, Any]:
    """A copy of the record to write into, so that what came in stays as it was.

    Raises:
        TypeError: the value is neither a text nor a JSON object.
    """
    if isinstance(value, str):
        return {"query": value}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a record of this step is a text or a JSON object, not {type(value).__name__}")


def required(record: Mapping[str, Any], field: str, *, hint: str) -> Any:
    """A field of the record that this step can't do without.

    Raises:
        KeyError: it is not there; the note tells which fields are, and ``hint`` what may be missing upstream.
    """
    if field not in record:
        missing(record, field, hint=hint)
    return record[field]


def text_of(record: Mapping[str, Any], field: str) -> str:
    """A field that is there, as text: a model would be asked about the word None.

    Raises:
        TypeError: it is none.
    """
    text = record[field]
    if not isinstance(text, str):
        raise TypeError(f"{field} is a {type(text).__name__}, not a text")
    return text


def turns_of(record: Mapping[str, Any]) -> list[Message]:
    """The turns in the record's ``history``; none where there is no such field.

    Raises:
        TypeError: it is no list of objects with ``role`` and ``content``.
    """
    history = record.get("history")
    if history is None:
        return []
    if not isinstance(history, list | tuple):
        raise TypeError(f"history is a {type(history).__name__}, not a list of turns")
    for number, turn in enumerate(history, 1):
        if not isinstance(turn, Mapping) or not {"role", "content"} <= turn.keys():
            raise TypeError(f"turn {number} of history must be an object with role and content")
    return [Message(role=turn["role"], content=turn["content"]) for turn in history]


def missing(record: Mapping[str, Any], field: str, *, hint: str) -> Never:
    """Refuse the record for want of a field.

    Raises:
        KeyError: always.
    """
    error = KeyError(field)
    error.add_note(f"the record has: {', '.join(sorted(record)) or 'no fields'}")
    error.add_note(hint)
    raise error
