"""One record under way in an asynchronous stage."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from sage.ports import RawMessage, Span
from sage.runtime.dead_letters import DeadLetter
from sage.runtime.outputs import Output
from sage.runtime.tracker import Pending

if TYPE_CHECKING:
    from sage.runtime.lanes import Lane
    from sage.runtime.partition_state import PartitionState


class Flight:
    """From acceptance to the last acknowledgement of what the record became.

    Attributes:
        home: the partition's state at the time it was taken on; a dead home's results are thrown away.
        attempts: tries so far.
        alone: its micro-batch failed, so it is tried by itself.
        outputs: what to produce; ``None`` while the work is not finished.
        letter: the dead letter that takes the place of the outputs; ``shortened`` once it had to be cut.
        skipped: given up by ``on_error: skip``.
        unacknowledged: outputs produced and not yet answered for.
    """

    __slots__ = (
        "alone", "attempts", "home", "lane", "letter", "message", "outputs", "pending", "record_id", "shortened",
        "size", "skipped", "span", "started", "unacknowledged", "value",
    )  # fmt: skip

    def __init__(self, message: RawMessage, home: PartitionState, pending: Pending, record_id: str, size: int) -> None:
        self.message = message
        self.home = home
        self.pending = pending
        self.record_id = record_id
        self.size = size
        self.lane: Lane | None = None
        self.attempts = 0
        self.alone = False
        self.value: Any = None
        self.outputs: list[Output] | None = None
        self.unacknowledged = 0
        self.started = 0.0
        self.span: Span | None = None
        self.letter: DeadLetter | None = None
        self.shortened = False
        self.skipped = False

    def lane_key(self, ordering: str) -> Hashable | None:
        """The key whose records keep their order; ``None`` where this record waits for no other."""
        if ordering == "partition":
            return True
        return self.message.key() if ordering == "key" else None
