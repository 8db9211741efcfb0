"""The loop's side of an asynchronous stage: what is under way, from acceptance to acknowledgement.

Invariant: every accepted record is released exactly once, when it is done or when its partition's state dies;
else the window would leak room until consumption stops.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from sage.errors import RecordTooLarge, SageError, StageStopped
from sage.model.partition import TopicPartition
from sage.ports import DeliveryFailure, Producer, RawMessage
from sage.runtime.dead_letters import dead_letter
from sage.runtime.flight import Flight
from sage.runtime.input_decoder import InputDecoder
from sage.runtime.outputs import Output
from sage.runtime.partition_state import PartitionState
from sage.runtime.sending import Sending
from sage.runtime.stage_context import Identity, StageSetting
from sage.runtime.turns import Turns
from sage.runtime.window import Window
from sage.runtime.work import work_of


class Flights:
    """Accepts records, has ``Turns`` run them, sends what they become, and tracks what is done."""

    def __init__(self, setting: StageSetting, producer: Producer) -> None:
        (self._step,) = setting.steps
        self._setting = setting
        self._producer = producer
        stage = setting.stage
        self._threads = ThreadPoolExecutor(stage.concurrency, f"sage-{stage.name}") if self._step.blocking else None
        decoder = InputDecoder(stage.inputs, self._step.input_type)
        work = work_of(self._step, self._threads, decoder, setting.targets())
        self.window = Window.of(stage, work.size)
        self._turns = Turns(setting, work, finished=self._finished, buried=self._bury, failed=self._stop)
        self._identity = Identity(setting.topic_ids, setting.merges())
        self._keeps_unkeyed_order = stage.ordering == "key" and stage.execution != "sink"
        self._homes: dict[TopicPartition, PartitionState] = {}
        self._sending: Sending | None = None
        self._server: asyncio.Task[None] | None = None
        self.rewinds: queue.SimpleQueue[tuple[PartitionState, int]] = queue.SimpleQueue()
        self.released = 0
        self.released_bytes = 0
        self.failure: SageError | None = None

    # ------------------------------------------------------------------ life

    async def open(self) -> None:
        """Open the step and start to serve deliveries."""
        self._sending = Sending(self._producer, self._setting.tracer, self._answered, self._too_large)
        self._server = asyncio.get_running_loop().create_task(self._sending.serve())
        self._server.add_done_callback(self._server_ended)
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
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)

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

    async def lose(self, partitions: Sequence[TopicPartition]) -> None:
        """``drop``, for a caller that waits for it."""
        self.drop(partitions)

    def _kill(self, home: PartitionState) -> None:
        self._turns.forget(home.partition)
        self.released += home.under_way
        self.released_bytes += home.under_way_bytes
        home.die()

    async def finish(self, partitions: Sequence[TopicPartition], timeout: float) -> dict[TopicPartition, int]:
        """Let what is at work in these finish, start nothing new there, then drop them; what is settled."""
        homes = [self._homes[partition] for partition in partitions if partition in self._homes]
        for home in homes:
            home.closing = True
            self._turns.forget(home.partition)
        await self._until(lambda: not any(home.running or home.unanswered for home in homes), timeout)
        settled = {home.partition: offset for home in homes if (offset := home.committable) is not None}
        self.drop(partitions)
        return settled

    async def drain(self, timeout: float) -> None:
        """Let everything under way finish, within ``timeout`` seconds."""
        await self._until(lambda: not any(home.under_way for home in self._homes.values()), timeout)

    async def _until(self, condition: Callable[[], bool], timeout: float) -> None:
        deadline = self._setting.clock.monotonic() + timeout
        while not condition() and self.failure is None and self._setting.clock.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    async def settled(self) -> dict[TopicPartition, int]:
        """The next offset of every partition of which all before is acknowledged."""
        return {p: offset for p, home in self._homes.items() if (offset := home.committable) is not None}

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
            self._accept(messages)
        except Exception as error:  # nobody above this on the loop would hear of it
            self._stop(
                StageStopped(f"{type(error).__name__}: {error}; nothing was committed past it", where=self._where)
            )

    def _accept(self, messages: Sequence[RawMessage]) -> None:
        for message in messages:
            size = len(message.value() or b"")
            home = self._homes.get(TopicPartition(message.topic(), message.partition()))
            if home is None or home.closing or home.broken:
                self.released += 1
                self.released_bytes += size
                continue
            pending = home.tracker.add(message.offset())
            flight = Flight(message, home, pending, self._identity.of(message), size)
            home.took_on(flight)
            if self._keeps_unkeyed_order and message.key() is None:
                home.unkeyed.append(flight)
            self._turns.add(flight)
        self._turns.go()

    def _finished(self, flight: Flight, outputs: list[Output]) -> None:
        """The work gave its outputs: produce them, unkeyed records in the order in which they came."""
        flight.outputs = outputs
        for leaving in self._leaving(flight):
            self._send(leaving)

    def _bury(self, flight: Flight, error: Exception) -> None:
        """The record is dead: its letter takes the place of its outputs."""
        setting = self._setting
        flight.letter = dead_letter(
            flight.message, error, topology=setting.plan.name, step=self._step.name, code=self._step.code,
            worker=setting.worker, attempts=max(flight.attempts, 1),
        )  # fmt: skip
        self._finished(flight, [])

    def _leaving(self, flight: Flight) -> list[Flight]:
        home = flight.home
        if self._keeps_unkeyed_order and flight.message.key() is None:
            return home.leave_in_order()
        return [flight]

    def _send(self, flight: Flight) -> None:
        assert self._sending is not None
        if not flight.home.alive:
            return
        flight.home.unanswered += 1
        if flight.letter is not None:
            self._sending.send_letter(flight, self._setting.plan.dead_letter_topic, flight.letter)
        elif flight.outputs:
            self._sending.send(flight)
        if flight.unacknowledged == 0 and not flight.pending.done:
            self._done(flight)

    def _answered(self, flight: Flight, failure: DeliveryFailure | None) -> None:
        if not flight.home.alive:
            return
        if failure is not None:
            self._refused(flight, failure)
        elif flight.unacknowledged == 0:
            self._done(flight)

    def _done(self, flight: Flight) -> None:
        if self.failure is not None:
            return  # the stage stops: what was not done by then is read again, whatever is still answered
        home = flight.home
        home.unanswered -= 1
        home.tracker.done(flight.pending)
        home.let_go(flight)
        self.released += 1
        self.released_bytes += flight.size
        counters = self._step.counters
        counters.read += 1
        if flight.letter is None and not flight.skipped:
            counters.written += len(flight.outputs or ()) if self._setting.stage.execution != "sink" else 1
            counters.durations.add(time.perf_counter() - flight.started)

    # --------------------------------------------------------------- refusals

    def _too_large(self, flight: Flight, error: RecordTooLarge) -> None:
        """An output does not fit: the record is dead, unless its letter does not fit either."""
        assert self._sending is not None
        if flight.letter is None:
            self._step.counters.dead += 1
            setting = self._setting
            flight.letter = dead_letter(
                flight.message, error, topology=setting.plan.name, step=self._step.name, code=self._step.code,
                worker=setting.worker, attempts=max(flight.attempts, 1),
            )  # fmt: skip
        elif flight.shortened:
            self._stop(StageStopped(f"a dead letter does not fit its topic: {error.message}", where=self._where))
            return
        else:
            flight.letter, flight.shortened = flight.letter.shortened(), True
        self._sending.send_letter(flight, self._setting.plan.dead_letter_topic, flight.letter)

    def _refused(self, flight: Flight, failure: DeliveryFailure) -> None:
        """The broker did not take an output (decision: delivery errors are never lost)."""
        if failure.too_large:
            self._too_large(flight, RecordTooLarge(f"{failure.topic}: {failure.reason}"))
        elif failure.retriable:
            self._rewind(flight.home)
        else:
            what = f"{failure.topic}-{failure.partition} did not take a record: {failure.reason}"
            self._stop(StageStopped(f"{what}; nothing was committed past it", where=self._where))

    def _rewind(self, home: PartitionState) -> None:
        """Read the partition again from its settled offset: what was produced after it may be out of order."""
        offset = home.committable
        self._kill(home)
        fresh = PartitionState(home.partition)
        fresh.broken = True
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
