"""One record under way in an asynchronous stage."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from sage.ports import RawMessage, Span
from sage.runtime.retries.dead_letters import DeadLetter
from sage.runtime.retries.parking import Parked
from sage.runtime.steps.outputs import Output

if TYPE_CHECKING:
    from sage.runtime.concurrent.lanes import Lane
    from sage.runtime.concurrent.partition_state import PartitionState
    from sage.runtime.concurrent.tracker import Pending
    from sage.runtime.state.stage_state import Fired, Staged


class Flight:
    """From acceptance until all that the record became is safe.

    Attributes:
        message: the record as the stage sees it; ``offset`` is where it was read, which differs for a retried one.
        home: the partition's state at the time it was taken on; a dead home's results are thrown away.
        counts: whether it has room in the window; a timer has none.
        attempts: tries so far.
        not_before: the loop's time before which it is not tried.
        failed_since: the loop's time of its first failure here; 0 while there is none.
        alone: its micro-batch failed, so it is tried by itself.
        outputs: what to produce; ``None`` while the work is not finished.
        letter: the dead letter that takes the place of the outputs; ``shortened`` once it had to be cut.
        parked: goes into the retry topic in place of the outputs.
        skipped: given up by ``on_error: skip``.
        keyed: what it did to keyed state.
        unacknowledged: outputs produced and not yet answered for.
        prepared: its outputs are in the open transaction, or sent with the checkpoint under way.
        taken: the broker has all of it, outside of any transaction: it is not sent again, whatever fails after it.
    """

    __slots__ = (
        "alone", "attempts", "counts", "failed_since", "home", "is_retry", "keyed", "lane", "letter", "message",
        "not_before", "offset", "outputs", "parked", "pending", "prepared", "record_id", "shortened", "size",
        "skipped", "span", "started", "taken", "timer", "unacknowledged", "value",
    )  # fmt: skip

    def __init__(
        self, message: RawMessage, home: PartitionState, pending: Pending | None, record_id: str, size: int,
        offset: int,
    ) -> None:  # fmt: skip
        self.message = message
        self.home = home
        self.pending = pending
        self.record_id = record_id
        self.size = size
        self.offset = offset
        self.counts = True
        self.is_retry = False
        self.lane: Lane | None = None
        self.attempts = 0
        self.not_before = 0.0
        self.failed_since = 0.0
        self.alone = False
        self.value: Any = None
        self.outputs: list[Output] | None = None
        self.unacknowledged = 0
        self.started = 0.0
        self.span: Span | None = None
        self.letter: DeadLetter | None = None
        self.shortened = False
        self.parked: Parked | None = None
        self.skipped = False
        self.keyed: Staged | None = None
        self.timer: Fired | None = None
        self.prepared = False
        self.taken = False

    @property
    def is_sent_alone(self) -> bool:
        """Whether the broker's answer is about this record and no other."""
        return self.offset < self.home.sent_alone_to

    def lane_key(self, ordering: str) -> Hashable | None:
        """The key whose records keep their order; ``None`` where this record waits for no other."""
        if ordering == "partition":
            return True
        return self.message.key() if ordering == "key" else None
