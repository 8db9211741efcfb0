"""The rules of names: topologies, steps, branches, and the topics and groups made of them."""

from __future__ import annotations

import re

from sage.errors import InvalidTopology

RESERVED = frozenset({"dlq", "offsets", "stream", "retry", "journal", "changelog"})
"""Words that name SAGE's own topics and can't name a step."""

_NAME = re.compile(r"[a-z0-9_-]+")


def check_name(name: str, *, what: str = "step", where: str | None = None) -> str:
    """Return ``name`` if it is a legal topology, step or branch name.

    Raises:
        InvalidTopology: it is no text, has other characters than ``[a-z0-9_-]``, or is reserved.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        found = re.sub(r"[^a-z0-9_-]+", "-", str(name).lower()).strip("-") or what
        raise InvalidTopology(f"{what} name {name!r}: only a-z, 0-9, _ and - are allowed; try {found!r}", where=where)
    if name in RESERVED:
        raise InvalidTopology(f"{what} name {name!r} is reserved for SAGE's own topics; use another", where=where)
    return name


def folded(name: str) -> str:
    """The name as Kafka compares it for collisions: ``.`` and ``_`` are the same (KAFKA-1555's metric names)."""
    return name.replace(".", "_")


def edge_topic(topology: str, step: str, branch: str | None = None) -> str:
    """The topic that a step writes: ``<topology>.<step>`` or ``<topology>.<step>-<branch>``."""
    return f"{topology}.{step}" if branch is None else f"{topology}.{step}-{branch}"


def group_id(topology: str, step: str) -> str:
    """The consumer group of the stage whose first step is ``step``."""
    return f"{topology}.{step}"


def dead_letter_topic(topology: str) -> str:
    """Where records go that a topology could not process."""
    return f"{topology}.dlq"


def offsets_topic(topology: str) -> str:
    """Where a topology's sources keep their positions, one partition per source task."""
    return f"{topology}.offsets"


def retry_topic(topology: str, step: str) -> str:
    """Where records of a stage wait for another try, and where its replayed dead letters go."""
    return f"{topology}.{step}.retry"


def journal_topic(topology: str, step: str) -> str:
    """Where a step keeps the results of its external calls."""
    return f"{topology}.{step}.journal"


def changelog_topic(topology: str, step: str) -> str:
    """Where a step's keyed state is kept."""
    return f"{topology}.{step}.changelog"
