"""Synchronous stages: the whole batch in the consumer's thread, nothing awaited, no object per record.

What is safe to commit is one offset per partition and batch: by the time ``settled`` is asked, every record
before it has been through the chain, and a flush proves that the broker took what came out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from sage.errors import RecordTooLarge, StageStopped
from sage.model.partition import TopicPartition
from sage.ports import DeliveryFailure, RawMessage
from sage.runtime.fast_map import FastMap, fast_map
from sage.runtime.outbox import Outbox
from sage.runtime.record_work import RecordWork
from sage.runtime.stage_context import StageSetting

BATCH = 1_000
"""Records per consume call: enough to spread a call's cost, few enough to stop soon."""

TURN = 0.5
"""Seconds of work that a turn is given, by the pace of the last one."""

TURN_LIMIT = 5.0
"""Seconds after which a turn ends though records are left: long before the group takes us for dead."""

FLUSH_TIMEOUT = 5.0
"""Seconds a checkpoint waits for the broker; then the stage goes on and asks again."""

RunCoroutine = Callable[[Coroutine[Any, Any, None]], None]


class GiveUp(Exception):  # noqa: N818 - a way out of a batch, never shown
    """The actor is stopping while a record waits for its next try; it stays uncommitted."""


class SyncTask:
    """A chain of synchronous steps (``run`` runs a step's async ``open`` and ``close`` to their end)."""

    def __init__(self, setting: StageSetting, outbox: Outbox, run: RunCoroutine) -> None:
        self.steps = setting.steps
        self._setting = setting
        self._outbox = outbox
        self._run = run
        self._work = RecordWork(setting, outbox)
        self._fast: FastMap | None = fast_map(setting, self._work, outbox)
        inputs = setting.stage.inputs
        self._only_topic = inputs[0].topic if len(inputs) == 1 else None
        self._next: dict[TopicPartition, int] = {}
        self._settled: dict[TopicPartition, int] = {}
        self._careful_until: dict[TopicPartition, int] = {}
        self._rewinds: dict[TopicPartition, int] = {}
        self._rest: list[RawMessage] = []
        self._ends: dict[TopicPartition, int] = {}
        self._pace = 0.0
        self._deadline = 0.0
        self._gave_up = False

    def open(self) -> None:
        """Open the steps in order."""
        for step in self.steps:
            self._run(step.open(1))

    def room(self) -> int:
        """Records for about half a second of work: what is slow is taken in small bites, so that polls, commits
        and a stop are never far away."""
        if self._rest:
            return 0
        return max(1, min(BATCH, int(TURN / self._pace))) if self._pace else 1

    def may_resume(self) -> bool:
        """Never paused."""
        return True

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Start without a past."""
        self.lost(partitions)

    def accept(self, messages: list[RawMessage]) -> None:
        """Run the batch, after what the last turn left; what was run counts even when a later record stops the
        stage. After ``TURN_LIMIT`` seconds the rest is kept for the next turn."""
        batch, self._rest = self._rest + messages, []
        started, done = time.perf_counter(), 0
        self._deadline = started + TURN_LIMIT
        fast = None if self._careful_until else self._fast
        try:
            if fast is not None:
                fast.run(batch, self._wait, self._is_over)
            else:
                for message in batch:
                    self._one(message)
                    done += 1
                    if self._is_over():
                        break
        except GiveUp:
            self._gave_up = True
        finally:
            if fast is not None:
                done = fast.done
            self._advance(batch[:done])
            self._measure(time.perf_counter() - started, done)
            self._outbox.serve()
        self._rest = [] if self._gave_up else self._still_ours(batch[done:])
        if not self._rest:
            ends, self._ends = self._ends, {}
            self.reached_end(ends)

    def _is_over(self) -> bool:
        """Whether this turn has had its time, or the actor is asked to stop."""
        return time.perf_counter() > self._deadline or self._setting.stopping.is_set()

    def _measure(self, seconds: float, done: int) -> None:
        if done:
            self._pace = max(seconds / done, 1e-7)
            for step in self.steps:
                step.counters.durations.add(self._pace, done)

    def _still_ours(self, messages: Sequence[RawMessage]) -> list[RawMessage]:
        return [m for m in messages if TopicPartition(m.topic(), m.partition()) not in self._rewinds]

    def _one(self, message: RawMessage) -> None:
        partition = TopicPartition(message.topic(), message.partition())
        if partition in self._rewinds:
            return  # to be read again: what was fetched before the seek is not ours to run
        self._work.run(message, self._wait)
        if self._careful_until:
            self._prove(partition, message)

    def _wait(self, seconds: float) -> None:
        if self._setting.clock.wait(self._setting.stopping, seconds):
            raise GiveUp

    def _advance(self, messages: Sequence[RawMessage]) -> None:
        """Note how far each partition has come: one look per record, one note per batch and partition."""
        if self._only_topic is not None:
            last = {message.partition(): message.offset() for message in messages}
            reached = {TopicPartition(self._only_topic, number): offset for number, offset in last.items()}
        else:
            reached = {TopicPartition(m.topic(), m.partition()): m.offset() for m in messages}
        for partition, offset in reached.items():
            if partition in self._rewinds:
                continue
            if partition not in self._settled:
                self._settled[partition] = self._first_offset(partition, messages)
            self._next[partition] = offset + 1
            if self._careful_until and offset + 1 >= self._careful_until.get(partition, 0):
                self._careful_until.pop(partition, None)

    @staticmethod
    def _first_offset(partition: TopicPartition, messages: Sequence[RawMessage]) -> int:
        """Where an assignment began: what a rewind before the first checkpoint goes back to."""
        return next(m.offset() for m in messages if (m.topic(), m.partition()) == partition)

    def reached_end(self, ends: Mapping[TopicPartition, int]) -> None:
        """Nothing is under way between batches, so the end is committable as soon as the outputs are."""
        if self._gave_up:
            return  # records before these ends were not run
        if self._rest:
            self._ends.update(ends)  # they count when what is left has been run
            return
        for partition, end in ends.items():
            if partition in self._rewinds:
                continue
            if end > self._next.get(partition, -1):
                self._next[partition] = end
            if self._next[partition] >= self._careful_until.get(partition, 0):
                self._careful_until.pop(partition, None)

    def settled(self) -> dict[TopicPartition, int]:
        """Flush, look at the failures, and only then give the offsets."""
        if all(self._settled.get(partition) == offset for partition, offset in self._next.items()):
            return dict(self._next)
        failures = self._outbox.settle(FLUSH_TIMEOUT)
        if failures is None:
            return {}
        if failures:
            self._refused(failures)
            return {}
        self._settled.update(self._next)
        return dict(self._next)

    def _refused(self, failures: Sequence[DeliveryFailure]) -> None:
        """Outputs were not taken: read again from what is settled, one record at a time, to find whose."""
        self._stop_for_good_reason(failures)
        for partition, following in list(self._next.items()):
            settled = self._settled.get(partition, following)
            if settled < following:
                self._careful_until[partition] = following
                self._rewinds[partition] = self._next[partition] = settled
        self._rest = self._still_ours(self._rest)

    def _stop_for_good_reason(self, failures: Sequence[DeliveryFailure]) -> None:
        for failure in failures:
            if not (failure.retriable or failure.too_large):
                raise self._stopped(failure)

    def _stopped(self, failure: DeliveryFailure) -> StageStopped:
        return StageStopped(
            f"{failure.topic}-{failure.partition} did not take a record: {failure.reason}; "
            "nothing was committed past it",
            where=f'{self._setting.plan.name} step "{self._setting.stage.name}"',
        )

    def _prove(self, partition: TopicPartition, message: RawMessage) -> None:
        """After a refusal: wait for this record alone, so that the broker's answer names it."""
        failures = self._answers()
        self._stop_for_good_reason(failures)
        if not failures:
            return
        if all(failure.too_large for failure in failures):
            error = RecordTooLarge(f"the broker refused the output: {failures[0].reason}")
            self._work.refuse(message, error)
            if self._answers():  # its letter was refused as well: once more without the stack trace
                self._work.refuse(message, error, shortened=True)
                if refused := self._answers():
                    raise self._stopped(refused[0])
            return
        self._rewinds[partition] = message.offset()
        self._next[partition] = message.offset()

    def _answers(self) -> Sequence[DeliveryFailure]:
        """The broker's answers, waited for as long as it takes: sending again meanwhile would only double."""
        while (failures := self._outbox.settle(FLUSH_TIMEOUT)) is None:
            self._wait(0.0)
        return failures

    def rewinds(self) -> dict[TopicPartition, int]:
        """Where to read again from."""
        return dict(self._rewinds)

    def rewound(self, partitions: Sequence[TopicPartition]) -> None:
        """Records come from there now."""
        for partition in partitions:
            self._rewinds.pop(partition, None)

    def revoked(self, partitions: Sequence[TopicPartition], timeout: float) -> dict[TopicPartition, int]:
        """Nothing is under way between batches: flush and give what is settled."""
        del timeout
        settled = self.settled()
        given = {partition: settled[partition] for partition in partitions if partition in settled}
        self.lost(partitions)
        return given

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget these."""
        for partition in partitions:
            for kept in (self._next, self._settled, self._careful_until, self._rewinds, self._ends):
                kept.pop(partition, None)
        gone = set(partitions)
        self._rest = [m for m in self._rest if TopicPartition(m.topic(), m.partition()) not in gone]

    def idle(self) -> bool:
        """Whether all that was taken on has been run."""
        return not self._rest

    def drain(self, timeout: float) -> None:
        """Between turns nothing is under way; what the last one left stays uncommitted."""

    def close(self) -> None:
        """Close steps and producer; the first failure is raised after all were tried."""
        failure: BaseException | None = None
        for step in self.steps:
            try:
                self._run(step.close())
            except Exception as error:
                failure = failure or error
        self._outbox.close()
        if failure is not None:
            raise failure
