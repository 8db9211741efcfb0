"""Passages of documents: their ids, and which of them are no longer in their document.

A passage is a record ``{"id", "text", "metadata"}`` whose metadata holds

- ``source``: the document's name, such as its path;
- ``document``: the version of the document, a hash of its text and of how it was cut;
- ``chunk`` and ``chunks``: its place, from 0, and how many there are;
- ``heading``: the headings above it, joined by `` > ``, where it has any.

Ids are made of source and content, so that writing a document twice changes nothing, and a changed document
keeps the passages that stayed the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson


def content_id(text: str, metadata: Mapping[str, Any] | None = None) -> str:
    """The id of a memory that was given none: the same text with the same metadata is the same memory."""
    data = orjson.dumps(dict(metadata or {}), option=orjson.OPT_SORT_KEYS)
    return _hash(text.encode("utf-8", "replace"), data)


def document_version(text: str, *how: object) -> str:
    """The version of a document: changes with its text and with ``how`` it is cut."""
    return _hash(text.encode("utf-8", "replace"), repr(how).encode())


def chunk_ids(source: str, chunks: Sequence[str]) -> list[str]:
    """Ids of a document's passages, by content: equal passages of one document differ by their occurrence."""
    seen: Counter[str] = Counter()
    ids = []
    for chunk in chunks:
        ids.append(_hash(source.encode("utf-8", "replace"), chunk.encode("utf-8", "replace"), b"%d" % seen[chunk]))
        seen[chunk] += 1
    return ids


def stale_filter(source: str, version: str) -> str:
    """The filter that finds passages of other versions of a document."""
    return f"source == {_quoted(source)} and document != {_quoted(version)}"


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()


def _hash(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()
