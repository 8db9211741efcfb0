"""What a step did, in numbers: cheap to count, safe to read from another thread."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace

Numbers = tuple[int, int, int, int, int]
"""Records read, written, retried, skipped and dead."""


class Durations:
    """Durations in logarithmic buckets (about 10 % wide): a quantile without keeping every value."""

    _STEP = math.log(1.1)
    _LEAST = 1e-6

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count ``times`` calls that took ``seconds`` each."""
        self._buckets[int(math.log(max(seconds, self._LEAST) / self._LEAST) / self._STEP)] += times
        self.count += times

    def copy(self) -> Durations:
        """What was counted so far; counting goes on in the original."""
        made = Durations()
        made._buckets, made.count = self._buckets.copy(), self.count
        return made

    def since(self, earlier: Durations) -> Durations:
        """What was counted after ``earlier`` was copied."""
        made = Durations()
        made._buckets, made.count = self._buckets - earlier._buckets, self.count - earlier.count
        return made

    def quantile(self, q: float) -> float | None:
        """The ``q``-quantile in seconds; ``None`` where nothing was counted."""
        if not self.count:
            return None
        wanted, seen = q * self.count, 0
        for bucket, times in sorted(self._buckets.items()):
            seen += times
            if seen >= wanted:
                return self._LEAST * math.exp((bucket + 0.5) * self._STEP)
        return None


@dataclass(slots=True)
class StepCounters:
    """One step's numbers since its actor started."""

    read: int = 0
    written: int = 0
    retried: int = 0
    skipped: int = 0
    dead: int = 0
    last_error: str = ""
    durations: Durations = field(default_factory=Durations)

    @property
    def numbers(self) -> Numbers:
        """All that is counted in records."""
        return self.read, self.written, self.retried, self.skipped, self.dead

    def copy(self) -> StepCounters:
        """The numbers so far."""
        return replace(self, durations=self.durations.copy())

    def since(self, earlier: StepCounters) -> StepCounters:
        """What came after ``earlier`` was copied."""
        return StepCounters(
            self.read - earlier.read, self.written - earlier.written, self.retried - earlier.retried,
            self.skipped - earlier.skipped, self.dead - earlier.dead,
            self.last_error if self.last_error != earlier.last_error or self.dead > earlier.dead else "",
            self.durations.since(earlier.durations),
        )  # fmt: skip
