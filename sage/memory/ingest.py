"""Ids of memories: of a text by its content, of a document's passage by its place.

A passage is a record ``{"id", "text", "metadata"}`` whose metadata holds

- ``source``: the document's name, such as its path;
- ``chunk`` and ``chunks``: its place, from 0, and how many there are;
- ``heading``: the headings above it, joined by `` > ``, where it has any.

Its id is ``<source>#<chunk>``. So a document written twice changes nothing, a changed one replaces its own
passages, and those that a shorter one no longer has are found by their ids: a search through metadata for each
document would take longer with every document there is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

_MAX_SOURCE_BYTES = 400


def content_id(text: str, metadata: Mapping[str, Any] | None = None) -> str:
    """The id of a memory that was given none: the same text with the same metadata is the same memory."""
    data = orjson.dumps(dict(metadata or {}), option=orjson.OPT_SORT_KEYS)
    words = text.encode("utf-8", "replace")
    return hashlib.blake2b(b"%d:%b%b" % (len(words), words, data), digest_size=16).hexdigest()


def chunk_id(source: str, chunk: int) -> str:
    """The id of a document's passage; of a very long source name its hash."""
    name = source if len(source.encode("utf-8", "replace")) <= _MAX_SOURCE_BYTES else content_id(source)
    return f"{name}#{chunk}"
