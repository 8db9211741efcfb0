"""Record ids: the one identity that the journal, sinks, retries and replay use.

A root id names where a record entered SAGE; one is extended by ``step:index`` wherever one input can
give several outputs or branches merge. An id never holds an edge offset: that changes when an
at-least-once stage replays, and would double rows and model calls downstream.
"""

from __future__ import annotations

import hashlib

import orjson

from sage.model.json import Json

SAGE_ID = "sage.id"
"""The header that carries the record id, as UTF-8 text; always the last header that SAGE adds."""

MAX_LENGTH = 200
"""Longer ids are replaced by their hash, so that a feedback loop can't grow a header without bound."""


def topic_root(topic_id: str, partition: int, offset: int) -> str:
    """The id of a record that another program wrote: the topic's UUID, partition and offset."""
    return f"{root_start(topic_id, partition)}{offset}"


def root_start(topic_id: str, partition: int) -> str:
    """What the ids of ``topic_root`` have in common in one partition: all but the offset."""
    return f"{topic_id}:{partition}:"


def source_root(epoch: str, source: str, task: str, position: Json) -> str:
    """The id of a source's record; ``epoch`` changes only when the source starts afresh."""
    place = orjson.dumps(position, option=orjson.OPT_SORT_KEYS)
    return f"{epoch}:{source}:{_digest(task.encode() + b'/' + place)}"


def extended(record_id: str, step: str, index: int) -> str:
    """The id of the ``index``-th output of ``step`` for the record ``record_id``."""
    text = f"{record_id}/{step}:{index}"
    return text if len(text) <= MAX_LENGTH else _digest(text.encode(), size=16)


def joined(left: str, right: str) -> str:
    """The id of a join's output."""
    return _digest(f"{left}\n{right}".encode(), size=16)


def _digest(data: bytes, *, size: int = 12) -> str:
    return hashlib.blake2b(data, digest_size=size).hexdigest()
