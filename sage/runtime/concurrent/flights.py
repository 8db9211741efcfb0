"""The loop's side of an asynchronous stage: what is under way, from acceptance until it is safe.

Invariant: every accepted record is released exactly once, when it is done or when its partition's state dies;
else the window would leak room until consumption stops.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sage.errors import RecordTooLarge, SageError, StageStopped
from sage.model.partition import TopicPartition
from sage.ports import Producer, RawMessage
from sage.runtime.actors.commit_text import JournalMark
from sage.runtime.concurrent.departures import AtOnce, Departures
from sage.runtime.concurrent.flight import Flight
from sage.runtime.concurrent.partition_state import PartitionState
from sage.runtime.concurrent.prefix import Ready
from sage.runtime.concurrent.step_threads import StepThreads
from sage.runtime.concurrent.turns import Turns
from sage.runtime.concurrent.window import Window
from sage.runtime.concurrent.work import work_of
from sage.runtime.retries.intake import Intake, Retried
from sage.runtime.retries.parked_keys import Origin, ParkedKeys
from sage.runtime.retries.parking import Parked, parked
from sage.runtime.steps.input_decoder import InputDecoder
from sage.runtime.steps.outputs import Output
from sage.runtime.steps.stage_context import Identity, StageSetting

if TYPE_CHECKING:
    from sage.runtime.journal import Journal
    from sage.runtime.state.stage_state import CheckSize, Fired, StageState

LOOK_AGAIN = 0.2
"""Seconds until a record that is too large for the retry topic looks again whether its key still has others there."""


class Flights:
    """Accepts records, has ``Turns`` run them, lets them leave, and tracks what is done.

    Args:
        producer: at-least-once without state: outputs leave as records finish. ``None``: they leave as a prefix.
        journal: of external calls, where the step makes any.
        state: keyed state, of a ``process`` step.
        check_size: raises RecordTooLarge for what would not leave.
    """

    def __init__(
        self, setting: StageSetting, producer: Producer | None, journal: Journal | None, state: StageState | None,
        check_size: CheckSize,
    ) -> None:  # fmt: skip
        (self._step,) = setting.steps
        self._setting = setting
        stage = setting.stage
        self._threads = StepThreads(stage.name, stage.concurrency) if self._step.blocking else None
        decoder = InputDecoder(stage.inputs, self._step.input_type)
        work = work_of(self._step, self._threads, decoder, setting.targets(), journal, state)
        self.window = Window.of(stage, work.size)
        self.parked = ParkedKeys()
        self.journal = journal
        self._state = state
        self._check_size = check_size
        self._turns = Turns(
            setting, work, finished=self._finished, buried=self._bury, parking=self._parks, failed=self._stop
        )
        self._intake = Intake(stage)
        self._identity = Identity(setting.topic_ids, setting.merges())
        self._at_once = (
            None
            if producer is None
            else AtOnce(setting, producer, done=self._done, refused=self._rewind, failed=self._stop)
        )
        self._departures: Departures = self._at_once or Ready()
        self._keeps_unkeyed_order = stage.ordering == "key" and stage.execution != "sink" and self._at_once is not None
        self._homes: dict[TopicPartition, PartitionState] = {}
        self._server: asyncio.Task[None] | None = None
        self.rewinds: queue.SimpleQueue[tuple[PartitionState, int]] = queue.SimpleQueue()
        self.released = 0
        self.released_bytes = 0
        self.grown_bytes = 0
        self.has_parked = False
        self.retried_under_way = 0
        self.failure: SageError | None = None

    # ------------------------------------------------------------------ life

    async def open(self) -> None:
        """Open the step and start to serve deliveries."""
        if self._at_once is not None:
            self._server = asyncio.get_running_loop().create_task(self._at_once.sending.serve())
            self._server.add_done_callback(self._server_ended)
        if self.journal is not None:
            await self.journal.open()
        await self._step.open(self._setting.stage.concurrency)

    async def close(self) -> None:
        """Drop what is left and close the step."""
        self.drop(tuple(self._homes))
        self._turns.close()
        if self._server is not None:
            self._server.cancel()
        try:
            await self._step.close()
        finally:
            if self.journal is not None:
                await self.journal.close()
            if self._threads is not None:
                self._threads.close()

    # ------------------------------------------------------------- partitions

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """Start with empty states; old ones of the same name are dead."""
        self.drop(partitions)
        for partition in partitions:
            self._homes[partition] = PartitionState(partition)

    def drop(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget these at once: their results are thrown away, their room is given back."""
        for partition in partitions:
            home = self._homes.pop(partition, None)
            if home is not None:
                self._kill(home)
                if partition.topic == self._setting.stage.retry_topic:
                    self.parked.end(partition.partition)

    async def lose(self, partitions: Sequence[TopicPartition]) -> None:
        """``drop``, for a caller that waits for it."""
        self.drop(partitions)

    def _kill(self, home: PartitionState) -> None:
        self._turns.forget(home.partition)
        self.parked.rewind(home.partition, 0)
        self.released += home.under_way
        self.released_bytes += home.under_way_bytes
        if home.partition.topic == self._setting.stage.retry_topic:
            self.retried_under_way -= home.under_way
        home.die()

    def under_way(self, partition: TopicPartition, to: int) -> int:
        """Records of it that are under way, where all before offset ``to`` came here; on any thread."""
        home = self._homes.get(partition)
        if home is None or (home.tracker.frontier or 0) < to:
            return self.window.size  # as many as it may be: some are still on their way to this loop
        return home.under_way

    async def finish(self, partitions: Sequence[TopicPartition], timeout: float) -> None:
        """Let what is at work in these finish, start nothing new there."""
        homes = [self._homes[partition] for partition in partitions if partition in self._homes]
        for home in homes:
            home.closing = True
            self._turns.forget(home.partition)
        await self._until(lambda: not any(home.running or home.unanswered for home in homes), timeout)

    async def drain(self, timeout: float) -> None:
        """Let everything under way finish, within ``timeout`` seconds."""
        await self._until(self._all_ready if self._at_once is None else self._all_done, timeout)

    @property
    def unfinished(self) -> int:
        """Records whose work has not ended; at least once, whose outputs are not answered for."""
        homes = self._homes.values()
        if self._at_once is not None:
            return sum(home.under_way for home in homes)
        return sum(flight.outputs is None for home in homes for flight in home.flights)

    def _all_done(self) -> bool:
        return not any(home.under_way for home in self._homes.values())

    def _all_ready(self) -> bool:
        return all(flight.outputs is not None for home in self._homes.values() for flight in home.flights)

    async def _until(self, condition: Callable[[], bool], timeout: float) -> None:
        deadline = self._setting.clock.monotonic() + timeout
        while not condition() and self.failure is None and self._setting.clock.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    def reached_end(self, ends: Mapping[TopicPartition, int]) -> None:
        """A log's end moves the frontier over gaps and markers."""
        for partition, end in ends.items():
            home = self._homes.get(partition)
            if home is not None and not home.broken:
                home.tracker.reached_end(end)

    # ---------------------------------------------------------------- records

    def accept(self, messages: Sequence[RawMessage]) -> None:
        """Take records on; those of partitions that are gone, closing or to be read again are let go."""
        try:
            for message in messages:
                self._accept(message)
            self._turns.go()
        except Exception as error:  # nobody above this on the loop would hear of it
            self._stop(
                StageStopped(f"{type(error).__name__}: {error}; nothing was committed past it", where=self._where)
            )

    def _accept(self, message: RawMessage) -> None:
        size = len(message.value() or b"")
        home = self._homes.get(TopicPartition(message.topic(), message.partition()))
        if home is None or home.closing or home.broken:
            self.released += 1
            self.released_bytes += size
            return
        view = self._intake.view(message)
        pending = home.tracker.add(message.offset())
        flight = Flight(view, home, pending, self._identity.of(view), size, message.offset())
        if isinstance(view, Retried):
            self._take_up(flight, view)
        home.took_on(flight)
        if self._at_once is None:
            home.flights.append(flight)
        if self._keeps_unkeyed_order and message.key() is None and not flight.is_retry:
            home.unkeyed.append(flight)
        self._turns.add(flight)

    def _take_up(self, flight: Flight, view: Retried) -> None:
        """A record from the retry topic: its tries go on, not before it is due."""
        flight.is_retry = self.has_parked = True
        flight.attempts = view.attempts
        self.retried_under_way += 1
        wait = view.wait(self._setting.clock.now_ms(), self._setting.longest_backoff)
        if wait > 0:
            flight.not_before = asyncio.get_running_loop().time() + wait

    def fire(self, fired: Fired) -> None:
        """A timer is due: it runs in its key's lane like a record, and leaves with those before it."""
        home = self._homes.get(fired.partition)
        if home is None or home.closing or home.broken:
            return
        flight = Flight(fired.message, home, None, fired.record_id, 0, -1)
        flight.counts, flight.timer = False, fired
        home.flights.append(flight)
        self._turns.add(flight)
        self._turns.go()

    def _parks(self, flight: Flight, delay: float | None) -> bool:
        """Put a record into the retry topic instead of running or keeping it; whether that is the thing to do.

        One that does not fit there waits in front of its lane, however long.

        ``delay``: it failed and may be tried again then; ``None``: it is its turn to run.
        """
        stage, at = self._setting.stage, flight.home.partition
        if not stage.retry_topic or flight.is_retry or flight.timer is not None:
            return False
        if delay is None and not self.parked.has(at.partition, flight.message.key()):
            return False
        due = 0 if delay is None else self._setting.clock.now_ms() + int(delay * 1000)
        attempts = 0 if delay is None else flight.attempts
        record = parked(flight.message, stage.retry_topic, at.partition, attempts=attempts, due=due)
        if not self._fits(record):
            if delay is None:  # it may not overtake those of its key that are there
                flight.not_before = asyncio.get_running_loop().time() + LOOK_AGAIN
            return False
        self.has_parked = True
        flight.parked = record
        if stage.ordering == "key":
            self.parked.park(at, flight.offset, flight.message.key())
        self._finished(flight, [])
        return True

    def _fits(self, record: Parked) -> bool:
        """Whether a record that is at the limit already has room for the retry topic's headers."""
        try:
            self._check_size(record.topic, record.value, record.key, record.headers)
        except RecordTooLarge:
            return False
        return True

    def _finished(self, flight: Flight, outputs: list[Output]) -> None:
        """The work gave its outputs: let it leave, unkeyed records in the order in which they came."""
        flight.outputs = outputs
        self._grow(flight, outputs)
        if flight.timer is not None and flight.keyed is None and self._state is not None:
            if self._state.is_set(flight.timer):  # given up: what it changed is dropped, and it is no longer set
                number = flight.home.partition.partition
                flight.keyed = self._state.finish(number, self._state.begin_timer(flight.timer))
            self._state.timer_done(flight.timer)
        if isinstance(flight.message, Retried) and self._setting.stage.ordering == "key":
            origin = Origin.of(flight.message)
            self.parked.leave(flight.home.partition, flight.offset, flight.message.key(), origin)
        if self.journal is not None and flight.timer is None and flight.parked is None:
            self.journal.finished(flight.record_id, flight.home.partition, flight.offset)
        for leaving in self._leaving(flight):
            self._departures.leave(leaving)

    def _grow(self, flight: Flight, outputs: list[Output]) -> None:
        """What waits to leave is in memory too, and may be much larger than what came."""
        if flight.counts and flight.home.alive:
            more = sum(len(output.value or b"") for output in outputs)
            flight.size += more
            flight.home.under_way_bytes += more
            self.grown_bytes += more

    def _bury(self, flight: Flight, error: Exception) -> None:
        """The record is dead: its letter takes the place of its outputs."""
        flight.letter = self._setting.letter(flight.message, error, self._step, max(flight.attempts, 1))
        self._finished(flight, [])

    def _leaving(self, flight: Flight) -> list[Flight]:
        if self._keeps_unkeyed_order and flight.message.key() is None and not flight.is_retry:
            return flight.home.leave_in_order()
        return [flight]

    def _done(self, flight: Flight) -> None:
        if self.failure is not None:
            return  # the stage stops: what was not done by then is read again, whatever is still answered
        home = flight.home
        if flight.pending is not None:
            home.tracker.done(flight.pending)
        if flight.counts:
            home.let_go(flight)
            self.released += 1
            self.released_bytes += flight.size
            self.retried_under_way -= flight.is_retry
        if flight.parked is not None:
            return  # counted when its outcome is known
        if flight.letter is not None and not flight.is_retry:
            self.parked.give_up(home.partition, flight.offset)
        counters = self._step.counters
        counters.read += 1
        if flight.letter is None and not flight.skipped:
            counters.written += len(flight.outputs or ()) if self._setting.stage.execution != "sink" else 1
            counters.durations.add(time.perf_counter() - flight.started)

    # ------------------------------------------------------------- checkpoints

    async def settled(self) -> dict[TopicPartition, int]:
        """The next offset of every partition of which all before is acknowledged."""
        return {p: offset for p, home in self._homes.items() if (offset := home.committable) is not None}

    async def take_ready(self, most: int) -> tuple[list[Flight], dict[TopicPartition, int]]:
        """What can be committed as a prefix and is not under way to that yet, and the offsets after all of it."""
        ready = Ready.of(self._homes, self._setting.stage.retry_topic, most)
        return ready, {p: offset for p, home in self._homes.items() if (offset := home.prepared_to) is not None}

    async def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """All before these offsets is safe, and of timers all that is prepared: they move no offset."""
        if self._at_once is None:
            for partition, home in self._homes.items():
                for flight in home.take_committed(offsets.get(partition)):
                    self._done(flight)
        for partition, offset in offsets.items():
            self.parked.committed(partition, offset)
            if self.journal is not None:
                self.journal.committed(partition, offset)

    async def unprepare(self) -> None:
        """The checkpoint was thrown away: what was in it waits for the next one. Not what an earlier one had made
        safe and whose offset is owed: sent again, it would put older changes of state over newer ones."""
        for home in self._homes.values():
            for flight in home.flights:
                flight.prepared = flight.taken

    async def needed_journal(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, JournalMark]:
        """From where on the journal is needed for what is not committed."""
        if self.journal is None:
            return {}
        marks = {p: self.journal.low_mark(p.partition) for p in partitions}
        return {p: mark for p, mark in marks.items() if mark is not None}

    # --------------------------------------------------------------- refusals

    def _rewind(self, home: PartitionState, *, alone: bool = False) -> None:
        """Read the partition again from its settled offset: what was produced after it may be out of order.

        ``alone``: an output was refused for its size, and it is not known whose.
        """
        offset = home.committable
        self._kill(home)
        fresh = PartitionState(home.partition)
        fresh.broken = True
        fresh.sent_alone_to = max(home.sent_alone_to, (home.tracker.frontier or 0) if alone else -1)
        self._homes[home.partition] = fresh
        if offset is not None:
            self.rewinds.put((fresh, offset))

    def mended(self, partitions: Sequence[TopicPartition]) -> None:
        """The consumer has gone back: records count again."""
        for partition in partitions:
            home = self._homes.get(partition)
            if home is not None:
                home.broken = False

    def _server_ended(self, server: asyncio.Task[None]) -> None:
        if not server.cancelled() and (error := server.exception()) is not None:
            what = f"deliveries are no longer served: {type(error).__name__}: {error}"
            self._stop(error if isinstance(error, SageError) else StageStopped(what, where=self._where))

    def _stop(self, error: SageError) -> None:
        if self.failure is None:
            self.failure = error

    @property
    def _where(self) -> str:
        return f'{self._setting.plan.name} step "{self._step.name}"'
