"""What is known of a copy, kept in it: whether it still fits its changelog."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from sage.ports import StateStore
from sage.runtime.state.table import FACTS

MAX_AGE_MS = 12 * 3600 * 1000
"""A copy that was last complete longer ago is made again. A compacted topic forgets deletions after its
``delete.retention.ms``, 24 hours by default: an older copy would keep for ever what was deleted meanwhile."""

FRESHEN_MS = 10 * 60 * 1000
"""How often the copy of a running stage is said to be complete."""


@dataclass(frozen=True, slots=True)
class CopyFacts:
    """Written together with entries.

    Attributes:
        topic: the changelog's UUID: one that was deleted and made again has the same name and other offsets.
        complete: milliseconds since the epoch when the copy was last known to have all that the changelog had.
        has_timers: whether the index of timers is kept.
    """

    topic: str
    complete: int
    has_timers: bool

    def encode(self) -> bytes:
        """As it is stored."""
        return orjson.dumps({"topic": self.topic, "complete": self.complete, "timers": self.has_timers})

    @classmethod
    def of(cls, store: StateStore) -> CopyFacts | None:
        """What the store says of itself; ``None`` where it says nothing."""
        raw = store.get(FACTS)
        if raw is None:
            return None
        fields = orjson.loads(raw)
        return cls(fields["topic"], fields["complete"], fields["timers"])

    def write(self, store: StateStore, applied: int | None = None) -> None:
        """Say so, and that it is complete up to ``applied``. Raises DiskFull."""
        store.apply({FACTS: self.encode()}, store.applied if applied is None else applied)


def misfit(store: StateStore, wanted: CopyFacts, start: int, end: int) -> str | None:
    """Why the copy must be made again; ``None`` where it can be gone on with.

    Args:
        store: the copy.
        wanted: what its facts would be, were it complete now.
        start, end: the changelog's first offset, and its end.
    """
    if store.applied == 0:
        return None  # new
    found = CopyFacts.of(store)
    if found is None or found.topic != wanted.topic:
        return "it is of another changelog of that name"
    if store.applied > end:
        return f"it is at offset {store.applied}, and the changelog ends at {end}"
    if store.applied < start:
        return f"it is at offset {store.applied}, and the changelog begins at {start}"
    if found.has_timers != wanted.has_timers:
        return "it was made without an index of timers" if wanted.has_timers else "it has timers that nobody hears"
    if wanted.complete - found.complete > MAX_AGE_MS:
        return "it is so old that the changelog may have forgotten deletions"
    if found.complete - wanted.complete > MAX_AGE_MS:
        return "the clock was ahead when it was last complete, so that nobody knows its age"
    return None
