"""How much may be under way at once."""

from __future__ import annotations

from dataclasses import dataclass

from sage.plan.plan import Stage

MAX_BYTES = 64 * 1024 * 1024
"""Bytes of values under way per actor: large records must not fill the memory before their number does."""


@dataclass(frozen=True, slots=True)
class Window:
    """Bounds of one actor: ``size`` records, ``max_bytes`` bytes of their values."""

    size: int
    max_bytes: int = MAX_BYTES

    @classmethod
    def of(cls, stage: Stage, batch: int) -> Window:
        """Four times what can be at work, so that the next records are there when one finishes."""
        return cls(max(4 * stage.concurrency * batch, 16))
