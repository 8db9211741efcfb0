"""Synchronous stages: the whole batch in the consumer's thread, nothing awaited, no object per record.

What is safe to commit is one offset per partition and batch: by the time ``settled`` is asked, every record
before it has been through the chain. At-least-once, a flush proves that the broker took what came out;
exactly-once, the commit of the transaction does.

Nothing waits here: a record that is to be tried again goes to the retry topic (``ordering: key | none``), where
later records of its key queue up behind it, or its partition is held until then (``partition``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sage.errors import RecordTooLarge
from sage.model.partition import TopicPartition
from sage.ports import Commit, DeliveryFailure, RawMessage, TransactionAbortable
from sage.runtime.actors.commit_text import JournalMark
from sage.runtime.actors.holds import Holds
from sage.runtime.actors.transaction import Aborted
from sage.runtime.batches.due_timers import DueTimers
from sage.runtime.batches.fast_map import FastMap, fast_map
from sage.runtime.batches.fast_process import FastProcess, fast_process
from sage.runtime.batches.outbox import Outbox
from sage.runtime.batches.positions_of_batch import Positions
from sage.runtime.batches.record_work import RecordWork
from sage.runtime.batches.refusals import FLUSH_TIMEOUT, Proof, Refusals, Stopping
from sage.runtime.batches.slow_turns import SlowTurns
from sage.runtime.retries.intake import Intake, Retried
from sage.runtime.retries.parked_keys import Origin, ParkedKeys
from sage.runtime.retries.parking import ScanParked, TryLater, parked
from sage.runtime.steps.stage_context import StageSetting

if TYPE_CHECKING:
    from sage.runtime.state.stage_state import StageState

BATCH = 1_000
"""Records per consume call: enough to spread a call's cost, few enough to stop soon."""

TURN = 0.5
"""Seconds of work that a turn is given, by the pace of the last one."""

TURN_LIMIT = 5.0
"""Seconds after which a turn ends though records are left: long before the group takes us for dead, and before the
broker ends a transaction (10 s)."""

RunCoroutine = Callable[[Coroutine[Any, Any, None]], None]


class SyncTask:
    """A chain of synchronous steps.

    Args:
        run: runs a step's async ``open`` and ``close`` to their end.
        scan: finds out which keys are parked in a retry partition.
        state: keyed state, of a ``process`` step.
    """

    def __init__(
        self, setting: StageSetting, outbox: Outbox, run: RunCoroutine, scan: ScanParked,
        state: StageState | None = None,
    ) -> None:  # fmt: skip
        self.steps = setting.steps
        self._setting = setting
        self._outbox = outbox
        self._run = run
        self._scan = scan
        self._state = state
        self._work = RecordWork(setting, outbox, state)
        self._fast: FastMap | FastProcess | None = (
            fast_map(setting, self._work, outbox) if state is None else fast_process(setting, self._work, outbox, state)
        )
        self._intake = Intake(setting.stage)
        self._parked = ParkedKeys()
        self._keeps_keys = setting.stage.ordering == "key"
        self._positions = Positions()
        self._refusals = Refusals(setting, outbox, self._work, self._positions)
        self._timers = None if state is None else DueTimers(outbox, self._work, state, self._refusals)
        self._skipped: set[TopicPartition] = set()
        self._attempts: dict[TopicPartition, tuple[int, int]] = {}
        self._rest: list[RawMessage] = []
        self._ends: dict[TopicPartition, int] = {}
        self._pace = 0.0
        self._slow_turns = SlowTurns()
        self._deadline = 0.0
        self._holds: Holds | None = None

    # -------------------------------------------------------------------- life

    def open(self, holds: Holds) -> None:
        """Open the steps in order."""
        self._holds = holds
        for step in self.steps:
            self._run(step.open(1))

    def close(self) -> None:
        """Close steps, state and producer; the first failure is raised after all were tried."""
        failure: BaseException | None = None
        closes: list[Callable[[], None]] = [partial(self._run_close, step.close) for step in self.steps]
        if self._state is not None:
            closes.append(self._state.close)
        for close in (*closes, self._outbox.close):
            try:
                close()
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _run_close(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._run(close())

    def room(self) -> int:
        """Records for about half a second of work: what is slow is taken in small bites, so that polls, commits
        and a stop are never far away."""
        if self._rest or self._is_full:
            return 0
        return max(1, min(BATCH, int(TURN / self._pace))) if self._pace else 1

    def may_resume(self) -> bool:
        """As soon as nothing is left over."""
        return True

    # -------------------------------------------------------------- partitions

    def assigned(self, partitions: Mapping[TopicPartition, Commit]) -> None:
        """Start without a past, but for what is parked and the keyed state."""
        self.lost(tuple(partitions))
        for partition, commit in partitions.items():
            self._positions.start(partition, commit.offset)
            if self._keeps_keys and partition.topic == self._setting.stage.retry_topic:
                self._parked.start(partition.partition, self._scan(partition, commit))
        if self._state is not None and self._holds is not None:
            self._state.assigned(tuple(partitions), self._holds)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget these."""
        self._lost_transaction()
        for partition in partitions:
            self._positions.forget(partition)
            self._refusals.forget(partition)
            if self._timers is not None:
                self._timers.forget(partition)
            self._ends.pop(partition, None)
            self._attempts.pop(partition, None)
            self._skipped.discard(partition)
            self._parked.rewind(partition, 0)
            if partition.topic == self._setting.stage.retry_topic:
                self._parked.end(partition.partition)
        gone = set(partitions)
        self._rest = [m for m in self._rest if TopicPartition(m.topic(), m.partition()) not in gone]
        if self._state is not None:
            self._state.lost(partitions)

    def finish(self, partitions: Sequence[TopicPartition], timeout: float) -> None:
        """Between turns nothing is under way; what the last one left over is read by the next owner."""
        gone = set(partitions)
        self._rest = [m for m in self._rest if TopicPartition(m.topic(), m.partition()) not in gone]

    # ----------------------------------------------------------------- records

    def accept(self, messages: list[RawMessage]) -> None:
        """Run the batch, after what the last turn left; what was run counts even when a later record stops the
        stage. After ``TURN_LIMIT`` seconds the rest is kept for the next turn."""
        batch, self._rest = self._rest + messages, []
        self._skipped.clear()
        started, done = time.perf_counter(), 0
        self._deadline = started + TURN_LIMIT
        try:
            with self._turn(batch):
                while done < len(batch) and not self._is_full:
                    done = self._some(batch, done)
                    if self._is_over():
                        break
        except (TransactionAbortable, Aborted):
            self._positions.dropped(
                [m for m in batch if not self._passed_over(TopicPartition(m.topic(), m.partition()))]
            )
            raise
        except Stopping:
            done = len(batch)  # nothing more is run, nor counted as run
        finally:
            self._measure(time.perf_counter() - started, done)
            self._slow_turns.ran(done)
            self._outbox.serve()
        self._rest = [m for m in batch[done:] if not self._passed_over(TopicPartition(m.topic(), m.partition()))]
        if not self._rest:
            ends, self._ends = self._ends, {}
            self.reached_end(ends)

    @contextmanager
    def _turn(self, batch: Sequence[RawMessage]) -> Iterator[None]:
        """Some work in a transaction, where that is asked for; slow work before it."""
        began = self._setting.clock.monotonic()
        try:
            if not self._slow_turns.hold_outputs:
                if batch:
                    self._outbox.begin()
                yield
            else:
                with self._outbox.holding():
                    yield
        finally:
            self._slow_turns.took(self._setting.clock.monotonic() - began)

    @property
    def _is_full(self) -> bool:
        """Whether the open transaction is to be closed first."""
        return self._outbox.is_full or (self._slow_turns.hold_outputs and self._outbox.has_content)

    def _some(self, batch: list[RawMessage], done: int) -> int:
        """Run records from ``done`` on, as many as go the same way; where the next one is."""
        fast = self._fast
        if fast is None or self._positions.careful or self._parked.any or self._skipped:
            message = batch[done]
            self._one(message)
            return done + 1
        rest = batch[done:] if done else batch
        try:
            fast.run(rest, self._is_over)
        except TryLater as later:
            self._positions.advance(fast.reached, rest)
            done += fast.done
            self._later(batch[done], batch[done], later)
            return done + 1
        except BaseException:
            self._positions.advance(fast.reached, rest)
            raise
        self._positions.advance(fast.reached, rest)
        done += fast.done
        if fast.met_retry:
            self._one(batch[done])
            done += 1
        return done

    def _one(self, message: RawMessage) -> None:
        """Run one record the careful way."""
        at = TopicPartition(message.topic(), message.partition())
        if self._passed_over(at):
            return  # to be read again: what was fetched before is not ours to run
        view = self._intake.view(message)
        attempts = 0
        offset, tries = self._attempts.get(at, (-1, 0))
        if isinstance(view, Retried):
            attempts = view.attempts
            if self._has_double(at, message, view):
                self._parked.leave(at, message.offset(), message.key(), Origin.of(view))
                self._positions.passed(at, message.offset())
                return
            if self._is_overtaken(at, message, view):
                self._park(message, view, at, attempts, view.due)
                return
            wait = view.wait(self._setting.clock.now_ms(), self._setting.longest_backoff)
            if wait > 0 and offset != message.offset():  # else it has waited, whatever the clock says by now
                self._hold(at, message.offset(), wait, attempts)
                return
        elif self._must_queue_up(at, message):
            self._park(message, view, at, 0, 0)
            return
        try:
            if not self._refusals.refuse_condemned(at, message.offset(), view):
                self._work.run(view, attempts=tries if offset == message.offset() else attempts)
        except TryLater as later:
            self._later(message, view, later)
            return
        if self._proof(at, message.offset(), view) == "again":
            return
        if self._keeps_keys and isinstance(view, Retried):
            self._parked.leave(at, message.offset(), message.key(), Origin.of(view))
        self._positions.passed(at, message.offset())

    def _has_double(self, at: TopicPartition, message: RawMessage, view: Retried) -> bool:
        """Whether the same record comes again: to put both there again would multiply them with every death."""
        doubled = self._keeps_keys and self._parked.has_double(at.partition, message.key(), Origin.of(view))
        return doubled and not self._refusals.is_condemned(at, message.offset())

    def _is_overtaken(self, at: TopicPartition, message: RawMessage, view: Retried) -> bool:
        """Whether an earlier record of its key went to the end of the retry topic, so that it must go there too."""
        if not view.tells_its_place:  # put there again it would have one, which may be another one's
            return False
        overtaken = self._keeps_keys and self._parked.is_overtaken(at.partition, message.key(), Origin.of(view))
        return overtaken and not self._refusals.is_condemned(at, message.offset())

    def _must_queue_up(self, at: TopicPartition, message: RawMessage) -> bool:
        """Behind earlier records of its key in the retry topic, which take it; one that is given up need not."""
        waits = self._keeps_keys and self._parked.has(at.partition, message.key())
        return waits and not self._refusals.is_condemned(at, message.offset())

    def _proof(self, at: TopicPartition, offset: int, view: RawMessage) -> Proof:
        """While records are asked for by name: the broker's answer to all that this one became. Raises as there."""
        return self._refusals.proved(at, offset, view) if self._positions.careful else "taken"

    def _later(self, message: RawMessage, view: RawMessage, later: TryLater) -> None:
        """Another try may help: park the record, again if need be, or hold its partition."""
        at = TopicPartition(message.topic(), message.partition())
        stage = self._setting.stage
        waits_for_nobody = isinstance(view, Retried) and self._keeps_keys
        if (
            stage.ordering == "partition"
            or not stage.retry_topic
            or (waits_for_nobody and self._parked.is_alone(at.partition, message.key()))
            or (isinstance(view, Retried) and not view.tells_its_place)
        ):
            self._hold(at, message.offset(), later.delay, later.attempts)
        else:
            due = self._setting.clock.now_ms() + int(later.delay * 1000)
            self._park(message, view, at, later.attempts, due, delay=later.delay)

    def _hold(self, at: TopicPartition, offset: int, seconds: float, attempts: int) -> None:
        assert self._holds is not None, "records before open()"
        self._attempts[at] = (offset, attempts)
        self._skipped.add(at)
        self._ends.pop(at, None)  # its end was met before it went back
        self._holds.hold(at, at=offset, seconds=seconds)

    def _park(
        self, message: RawMessage, view: RawMessage, at: TopicPartition, attempts: int, due: int, *, delay: float = 0.0
    ) -> None:  # fmt: skip
        """Put it at the end of the retry topic, where others need not wait for it."""
        record = parked(view, self._setting.stage.retry_topic, at.partition, attempts=attempts, due=due)
        try:
            self._outbox.send(
                record.topic, record.value, record.key, record.headers, record.timestamp, record.partition
            )
        except RecordTooLarge:  # at the limit already: no room for the retry topic's headers
            self._hold(at, message.offset(), delay, attempts)
            return
        proof = self._proof(at, message.offset(), view)
        if proof == "again":
            return
        if self._keeps_keys and isinstance(view, Retried):  # one that is there again waits as it did
            if proof == "buried":
                self._parked.leave(at, message.offset(), message.key(), Origin.of(view))
        elif self._keeps_keys and proof == "taken":
            self._parked.park(at, message.offset(), message.key())
        self._positions.passed(at, message.offset())

    def _passed_over(self, at: TopicPartition) -> bool:
        return at in self._skipped or at in self._positions.rewinds

    def _is_over(self) -> bool:
        """Whether this turn has had its time, its transaction is full, or the actor is asked to stop."""
        return time.perf_counter() > self._deadline or self._setting.stopping.is_set() or self._outbox.is_full

    def _measure(self, seconds: float, done: int) -> None:
        if done:
            self._pace = max(seconds / done, 1e-7)
            for step in self.steps:
                step.counters.durations.add(self._pace, done)

    def tick(self) -> None:
        """Restore state, and fire the timers that are due."""
        if self._state is not None and self._holds is not None:
            self._state.restore(self._holds)
            # While records are asked for by name, a timer's refused output would be taken for one of theirs.
            if self._timers is not None and not self._positions.careful and not self._is_full:
                with self._turn(()):
                    self._timers.fire()
            self._state.sweep()

    def next_due(self) -> int | None:
        """When the next timer is due."""
        return None if self._state is None else self._state.next_due

    def reached_end(self, ends: Mapping[TopicPartition, int]) -> None:
        """Nothing is under way between batches, so the end is committable as soon as the outputs are."""
        if self._rest:
            self._ends.update(ends)  # they count when what is left has been run
            return
        for partition, end in ends.items():
            if not self._passed_over(partition):
                self._positions.reached_end(partition, end)

    # ------------------------------------------------------------- checkpoints

    def settled(self) -> dict[TopicPartition, int]:
        """At-least-once: flush, look at the failures, and only then give the offsets."""
        positions, state = self._positions, self._state
        is_dirty = state is not None and state.is_dirty
        if self._outbox.is_transactional:
            self._outbox.refuse_part()
        if not (is_dirty or positions.moved):
            return dict(positions.next)
        if self._outbox.is_transactional:
            self._write_changes()
            return dict(positions.next)
        if state is not None and is_dirty and not state.is_ours():
            return {}
        failures = self._outbox.settle(FLUSH_TIMEOUT)
        if is_dirty and failures == []:  # only now: a change must not outlive, in the changelog, a refused output
            self._write_changes()
            failures = self._outbox.settle(FLUSH_TIMEOUT)
        if failures is None:
            return {}
        if state is not None:
            failures += state.take_failures()
        if failures:
            self.aborted(failures)
            return {}
        self._kept(positions.next)
        return dict(positions.next)

    def _kept(self, offsets: Mapping[TopicPartition, int]) -> None:
        """What was run up to these offsets, and the timers that were fired, are safe."""
        self._positions.settle(offsets)
        if self._state is not None and self._timers is not None:
            self._state.keep_changes()
            self._timers.settled()

    def _write_changes(self) -> None:
        if self._state is not None and self._state.is_dirty:
            self._outbox.begin()
            self._state.write_changes(self._outbox)

    def needed_journal(self, offsets: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, JournalMark]:
        """Synchronous code makes no journaled calls."""
        return {}

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """A transaction's changes of state count from now on."""
        self._slow_turns.committed()
        if self._outbox.is_transactional:
            self._kept(offsets)
        for partition, offset in offsets.items():
            self._parked.committed(partition, offset)

    def aborted(self, failures: Sequence[DeliveryFailure]) -> None:
        """Outputs were not taken: read again from what is settled; one record at a time where one was refused."""
        self._lost_transaction()
        for partition, offset in self._positions.go_back(careful=bool(failures)).items():
            self._parked.rewind(partition, offset)
        self._rest = [m for m in self._rest if not self._passed_over(TopicPartition(m.topic(), m.partition()))]
        if self._state is not None and self._timers is not None:
            self._timers.aborted(refused=bool(failures))
            self._state.drop_changes()
        # Only now: what stops a stage must leave it where it is, or its last checkpoint would commit past the refusal.
        self._refusals.stop_for_good_reason(failures)

    def _lost_transaction(self) -> None:
        """One that may have ended because code took longer than it: what is run from now on is run before it opens."""
        if self._outbox.is_transactional:
            self._slow_turns.lost()

    def rewinds(self) -> dict[TopicPartition, int]:
        """Where to read again from."""
        return dict(self._positions.rewinds)

    def rewound(self, partitions: Sequence[TopicPartition]) -> None:
        """Records come from there now."""
        for partition in partitions:
            self._positions.rewinds.pop(partition, None)
            self._ends.pop(partition, None)  # it was met before, and is met again

    def idle(self) -> bool:
        """Whether all that was taken on has been run."""
        return not self._rest

    def at_rest(self) -> bool:
        """Whether no timer is overdue, at work or uncommitted, and all state is restored."""
        return self._state is None or self._state.is_at_rest

    @property
    def restored(self) -> float | None:
        """How much of its state is there while it is being restored."""
        return None if self._state is None else self._state.restored

    def drain(self, timeout: float) -> None:
        """Between turns nothing is under way; what the last one left stays uncommitted."""
