"""Which offset of a partition may be committed.

One tracker belongs to one assignment of one partition. When a partition comes back after it was lost it gets
a new tracker, so a result that arrives late can't move the new one (decision: fencing is not ownership).
"""

from __future__ import annotations

from collections import deque


class Pending:
    """One record under way: its offset, and whether all it caused is safe."""

    __slots__ = ("done", "offset")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.done = False


class OffsetTracker:
    """Acknowledgements of one partition, in offset order.

    Offsets may have gaps (compaction, transaction markers). The committable offset is that of the first
    record under way, or the frontier where none is: never past work that is not done.
    """

    def __init__(self) -> None:
        self._pending: deque[Pending] = deque()
        self._frontier: int | None = None

    def add(self, offset: int) -> Pending:
        """A record was taken on.

        Raises:
            ValueError: offsets must rise; a lower one means two readers feed one tracker.
        """
        if self._frontier is not None and offset < self._frontier:
            raise ValueError(f"offset {offset} after {self._frontier - 1}")
        pending = Pending(offset)
        self._pending.append(pending)
        self._frontier = offset + 1
        return pending

    def done(self, pending: Pending) -> None:
        """All that the record caused is acknowledged. Twice is the same as once."""
        pending.done = True
        queue = self._pending
        while queue and queue[0].done:
            queue.popleft()

    def reached_end(self, offset: int) -> None:
        """The log ends at ``offset`` for now: markers and gaps before it need no work."""
        if self._frontier is None or offset > self._frontier:
            self._frontier = offset

    @property
    def frontier(self) -> int | None:
        """The offset after the last record taken on, or the log's end; ``None`` before anything was seen."""
        return self._frontier

    @property
    def committable(self) -> int | None:
        """The next offset to read after a restart; ``None`` before anything was seen."""
        return self._pending[0].offset if self._pending else self._frontier

    def __len__(self) -> int:
        """Records from the first one under way on, done ones behind it included."""
        return len(self._pending)
