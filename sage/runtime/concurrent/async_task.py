"""Asynchronous stages: many records at work at once, in lanes by key, inside a bounded window.

All state lives on the event loop; the consumer thread hands batches over and asks questions through the
bridge. At-least-once, a record is done when the broker has answered for all that it became. Exactly-once, and with
keyed state, the contiguous prefix of finished records leaves at each checkpoint.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sage.errors import SageError
from sage.model.partition import TopicPartition
from sage.ports import Commit, DeliveryFailure, Producer, RawMessage
from sage.runtime.actors.commit_text import JournalMark
from sage.runtime.actors.holds import Holds
from sage.runtime.batches.outbox import Outbox
from sage.runtime.batches.refusals import FLUSH_TIMEOUT
from sage.runtime.concurrent.bridge import Bridge
from sage.runtime.concurrent.flight import Flight
from sage.runtime.concurrent.flights import Flights
from sage.runtime.concurrent.prefix import PrefixSender
from sage.runtime.retries.parking import ScanParked
from sage.runtime.steps.stage_context import StageSetting

if TYPE_CHECKING:
    from sage.runtime.journal import Journal
    from sage.runtime.state.stage_state import StageState

logger = logging.getLogger("sage.runtime")

FEW = 4
"""Records of each partition that find room in a full window."""

LOOK_EVERY = 2.0
"""Seconds between two looks at partitions of which nothing came while others kept the window full."""

LOOK_FOR = 0.15
"""Seconds that those others wait then: what is fetched of them stands in front of whatever else comes."""

CROWDED = 0.2
"""Seconds until a retry topic that has filled its half of the window is read on."""


class AsyncTask:
    """The consumer thread's side of an asynchronous stage; ``Flights`` is the loop's side.

    Args:
        producer: what sends as records finish; ``None`` where they leave as a prefix, through ``outbox``.
        scan: finds out which keys are parked in a retry partition.
    """

    def __init__(
        self, setting: StageSetting, bridge: Bridge, scan: ScanParked, *, producer: Producer | None = None,
        outbox: Outbox | None = None, journal: Journal | None = None, state: StageState | None = None,
    ) -> None:  # fmt: skip
        self.steps = setting.steps
        self._setting = setting
        self._producer = producer
        self._outbox = outbox
        self._sender = PrefixSender(setting, outbox) if outbox is not None else None
        self._unsent: list[Flight] = []
        self._unanswered: list[Flight] = []
        self._bridge = bridge
        self._scan = scan
        self._state = state
        self._accepted = 0
        self._accepted_bytes = 0
        self._taken_to: dict[TopicPartition, int] = {}
        self._served: set[TopicPartition] = set()
        self._was_full = False
        self._look_at = 0.0
        self._unsettled = False
        self._stopped: SageError | None = None
        self._holds: Holds | None = None
        sends = producer if producer is not None else outbox
        assert sends is not None, "records leave by a producer or as a prefix"
        self._flights = Flights(setting, producer, journal, state, sends.check_size)
        self._window = self._flights.window

    @property
    def window_size(self) -> int:
        """Records under way at most."""
        return self._window.size

    def open(self, holds: Holds) -> None:
        """Open the step, on the loop."""
        self._holds = holds
        holds.below_share = self._below_share
        self._bridge.call(self._flights.open())

    def room(self) -> int:
        """Records that fit the window now, by number and by bytes."""
        self._raise_failure()
        room = self._window.size - (self._accepted - self._flights.released)
        if room <= 0 or self._busy_bytes() >= self._window.max_bytes:
            self._was_full = True
            return 0
        return room

    def may_resume(self) -> bool:
        """Half of the window is free again."""
        busy = self._accepted - self._flights.released
        return busy <= self._window.size // 2 and self._busy_bytes() <= self._window.max_bytes // 2

    def _busy_bytes(self) -> int:
        return self._accepted_bytes + self._flights.grown_bytes - self._flights.released_bytes

    def _below_share(self) -> list[TopicPartition]:
        """Partitions that may go on though the window is full: a few records of each, or one where records are large.

        A few, because a partition that is stopped and let go again for each of its records waits for a fetch each time.
        """
        is_full_of_bytes = self._busy_bytes() >= self._window.max_bytes
        share = 1 if is_full_of_bytes else max(FEW, self._window.size // max(1, 2 * len(self._taken_to)))
        return [partition for partition, to in self._taken_to.items() if self._flights.under_way(partition, to) < share]

    # -------------------------------------------------------------- partitions

    def assigned(self, partitions: Mapping[TopicPartition, Commit]) -> None:
        """New homes, in order with the batches that follow; what their last owner left is read first."""
        retry_topic = self._setting.stage.retry_topic
        self._taken_to.update(dict.fromkeys(partitions, 0))
        self._bridge.soon(self._flights.assign, tuple(partitions))
        for partition, commit in partitions.items():
            if partition.topic == retry_topic and self._setting.stage.ordering == "key":
                self._bridge.soon(self._flights.parked.start, partition.partition, self._scan(partition, commit))
        if self._flights.journal is not None:
            self._bridge.call(self._flights.journal.assigned(partitions))
        if self._state is not None and self._holds is not None:
            self._state.assigned(tuple(partitions), self._holds)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Throw their work away; when this returns, nothing of it can ask for anything any more."""
        for partition in partitions:
            self._taken_to.pop(partition, None)
        self._bridge.call(self._flights.lose(tuple(partitions)))
        if self._flights.journal is not None:
            self._bridge.soon(self._flights.journal.lost, tuple(partitions))
        if self._state is not None:
            self._state.lost(partitions)

    def finish(self, partitions: Sequence[TopicPartition], timeout: float) -> None:
        """Finish what is at work in these, within one shared time."""
        self._bridge.call(self._flights.finish(partitions, timeout))

    # ----------------------------------------------------------------- records

    def accept(self, messages: list[RawMessage]) -> None:
        """Hand the batch to the loop; of retried records only as many as leave room for others."""
        self._raise_failure()
        messages = self._with_room(messages)
        if not messages:
            return
        self._accepted += len(messages)
        self._accepted_bytes += sum(len(message.value() or b"") for message in messages)
        for message in messages:
            at = TopicPartition(message.topic(), message.partition())
            if at in self._taken_to:
                self._taken_to[at] = message.offset() + 1
                self._served.add(at)
        self._unsettled = True
        self._bridge.soon(self._flights.accept, messages)

    def _with_room(self, messages: list[RawMessage]) -> list[RawMessage]:
        retry_topic = self._setting.stage.retry_topic
        if not retry_topic or not any(message.topic() == retry_topic for message in messages):
            return messages
        taken: list[RawMessage] = []
        left = self._window.size // 2 - self._flights.retried_under_way
        held: set[TopicPartition] = set()
        for message in messages:
            at = TopicPartition(message.topic(), message.partition())
            if at.topic == retry_topic:
                if at in held:
                    continue
                if left <= 0:
                    held.add(at)
                    assert self._holds is not None, "records before open()"
                    self._holds.hold(at, at=message.offset(), seconds=CROWDED)
                    continue
                left -= 1
            taken.append(message)
        return taken

    def tick(self) -> None:
        """Restore state, fire the timers that are due, and see that no partition is kept out by another."""
        self._raise_failure()
        self._look_aside()
        if self._state is not None and self._holds is not None:
            self._state.restore(self._holds)
            for fired in self._state.due():
                self._unsettled = True
                self._bridge.soon(self._flights.fire, fired)
            self._state.sweep()
            self._unsettled |= self._state.is_dirty

    def _look_aside(self) -> None:
        """Stop for a moment the partitions whose backlog keeps the window full: thousands of their records may be
        fetched already, and a record of another partition waits behind all of them."""
        now = self._setting.clock.monotonic()
        if now < self._look_at or self._holds is None:
            return
        self._look_at = now + LOOK_EVERY
        served, self._served = self._served, set()
        was_full, self._was_full = self._was_full, False
        if was_full and any(self._may_have_come(partition) for partition in self._taken_to.keys() - served):
            for partition in served & self._taken_to.keys():
                if not self._holds.holds(partition):
                    self._holds.hold(partition, seconds=LOOK_FOR)

    def _may_have_come(self, partition: TopicPartition) -> bool:
        return partition.topic != self._setting.stage.retry_topic or self._flights.has_parked

    def next_due(self) -> int | None:
        """When the next timer is due."""
        return None if self._state is None else self._state.next_due

    def reached_end(self, ends: Mapping[TopicPartition, int]) -> None:
        """Gaps and markers at the end of a log need no work."""
        self._unsettled = True
        self._bridge.soon(self._flights.reached_end, dict(ends))

    # ------------------------------------------------------------- checkpoints

    def settled(self) -> dict[TopicPartition, int]:
        """The contiguous prefix of every partition, sent first where that is how records leave."""
        self._raise_failure()
        if not self._unsettled:
            return {}
        if self._outbox is not None:
            try:
                return self._prepared(self._outbox)
            except SageError as error:
                self._stopped = error  # what was not sent counts as prepared: the last checkpoint must not be made
                raise
        busy = not self.idle()
        settled = self._bridge.call(self._flights.settled())
        self._unsettled = busy
        return settled

    def _prepared(self, outbox: Outbox) -> dict[TopicPartition, int]:
        assert self._sender is not None
        ready, offsets = self._bridge.call(self._flights.take_ready(self._sender.most))
        state = self._state
        if state is not None:
            state.prepare(flight.keyed for flight in ready if flight.keyed is not None)
        self._unsent += ready
        if self._unsent or (state is not None and state.is_dirty):
            if state is not None and not outbox.is_transactional and not state.is_ours():
                return {}
            outbox.begin()
            sending, self._unsent = self._unsent, []
            self._sender.send(sending)
            self._unanswered += sending
        if outbox.is_transactional:
            self._unanswered = []  # the commit answers for all
            if state is not None:
                state.write_changes(outbox)
            return offsets
        failures = self._answers(outbox)
        if state is not None and state.is_dirty and failures == []:
            # Only now: a change must not outlive, in the changelog, a refused output.
            state.write_changes(outbox)
            failures = self._answers(outbox)
        if failures is None:
            return {}  # asked for again at the next checkpoint: to send again meanwhile would only double
        if failures:
            self.aborted(failures)
            return {}
        self._taken()
        return offsets

    def _taken(self) -> None:
        """The broker has all that was sent, and the changes of state."""
        taken, self._unanswered = self._unanswered, []
        for flight in taken:
            flight.taken = True
        if self._state is not None:
            self._state.keep_changes()
            if any(flight.timer is not None for flight in taken):
                self._bridge.call(self._flights.committed({}))  # no offset may move for long: they are done now

    def _answers(self, outbox: Outbox) -> list[DeliveryFailure] | None:
        """What the broker did not take of all that was sent; ``None`` where it has not answered in time."""
        failures = outbox.settle(FLUSH_TIMEOUT)
        if failures is not None:
            failures += [] if self._sender is None else self._sender.take_failures()
            failures += [] if self._state is None else self._state.take_failures()
        return failures

    def needed_journal(self, offsets: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, JournalMark]:
        """From where on the journal is needed."""
        if self._flights.journal is None:
            return {}
        return self._bridge.call(self._flights.needed_journal(tuple(offsets)))

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Their records are done, their room is given back."""
        if self._state is not None and self._outbox is not None and self._outbox.is_transactional:
            self._state.keep_changes()
        self._bridge.call(self._flights.committed(offsets))
        if self._outbox is not None:
            self._unsettled = not self.idle() or self._state is not None

    def aborted(self, failures: Sequence[DeliveryFailure]) -> None:
        """Send the same again at the next checkpoint: no call is made twice for it."""
        if self._sender is not None:
            self._unsent, self._unanswered = [], []
            self._bridge.call(self._flights.unprepare())
            if self._state is not None:
                self._state.forget_changes()
            # Only now: a refusal that stops the stage must not leave anything prepared for its last checkpoint.
            self._sender.failed(failures)

    def rewinds(self) -> dict[TopicPartition, int]:
        """Where outputs were refused; each is given once, and none of an assignment that is gone."""
        taken: dict[TopicPartition, int] = {}
        while True:
            try:
                home, offset = self._flights.rewinds.get_nowait()
            except queue.Empty:
                return taken
            if home.alive:
                taken[home.partition] = offset

    def rewound(self, partitions: Sequence[TopicPartition]) -> None:
        """Batches handed over from now on come from there."""
        self._taken_to.update(dict.fromkeys(partitions, 0))
        self._bridge.soon(self._flights.mended, tuple(partitions))

    # -------------------------------------------------------------------- ends

    def idle(self) -> bool:
        """Whether everything handed over is released."""
        return self._accepted == self._flights.released

    def at_rest(self) -> bool:
        """Whether no timer is overdue, at work or uncommitted, and all state is restored."""
        return self._state is None or self._state.is_at_rest

    @property
    def restored(self) -> float | None:
        """How much of its state is there while it is being restored."""
        return None if self._state is None else self._state.restored

    def drain(self, timeout: float) -> None:
        """Finish the window; what takes longer is not committed, and the log says how much that is."""
        self._bridge.call(self._flights.drain(timeout))
        self._raise_failure()  # whatever is left waits for nothing
        if left := self._flights.unfinished:
            logger.warning(
                '%s step "%s": %d %s still at work after %.0f s; not committed, so read again',
                self._setting.plan.name, self._setting.stage.name, left, "record is" if left == 1 else "records are",
                timeout,
            )  # fmt: skip

    def close(self) -> None:
        """Close the step, its state and the producer."""
        try:
            self._bridge.call(self._flights.close())
        finally:
            if self._state is not None:
                self._state.close()
            for sends in (self._producer, self._outbox):
                if sends is not None:
                    sends.close()

    def _raise_failure(self) -> None:
        failure: SageError | None = self._stopped or self._flights.failure
        if failure is not None:
            raise failure
