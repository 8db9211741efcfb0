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

    def open(self) -> None:
        """Open the steps in order."""
        for step in self.steps:
            self._run(step.open(1))

    def room(self) -> int:
        """Always a batch: the path is synchronous, so not consuming is the backpressure."""
        return BATCH

    def may_resume(self) -> bool:
        """Never paused."""
        return True

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Start without a past."""
        self.lost(partitions)

    def accept(self, messages: list[RawMessage]) -> None:
        """Run the batch; what was run counts even when a later record stops the stage."""
        started, done = time.perf_counter(), 0
        fast = None if self._careful_until else self._fast
        try:
            if fast is not None:
                fast.run(messages, self._wait)
            else:
                for message in messages:
                    self._one(message)
                    done += 1
        except GiveUp:
            return
        finally:
            if fast is not None:
                done = fast.done
            self._advance(messages[:done])
            if done:
                each = (time.perf_counter() - started) / done
                for step in self.steps:
                    step.counters.durations.add(each, done)
            self._outbox.serve()

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
        for partition, end in ends.items():
            if partition not in self._rewinds and end > self._next.get(partition, -1):
                self._next[partition] = end

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
        for partition, following in self._next.items():
            self._careful_until[partition] = following
            self._rewinds[partition] = self._settled.get(partition, following)
        self._next = dict(self._rewinds)

    def _stop_for_good_reason(self, failures: Sequence[DeliveryFailure]) -> None:
        for failure in failures:
            lost_letter = failure.topic == self._setting.plan.dead_letter_topic and not failure.retriable
            if lost_letter or not (failure.retriable or failure.too_large):
                raise StageStopped(
                    f"{failure.topic}-{failure.partition} did not take a record: {failure.reason}; "
                    "nothing was committed past it",
                    where=f'{self._setting.plan.name} step "{self._setting.stage.name}"',
                )

    def _prove(self, partition: TopicPartition, message: RawMessage) -> None:
        """After a refusal: wait for this record alone, so that the broker's answer names it."""
        failures = self._outbox.settle(FLUSH_TIMEOUT)
        if failures and all(failure.too_large for failure in failures):
            error = RecordTooLarge(f"the broker refused the output: {failures[0].reason}")
            self._work.bury(message, error, self.steps[-1], 1)
        elif failures or failures is None:
            self._stop_for_good_reason(failures or ())
            self._rewinds[partition] = message.offset()
            self._next[partition] = message.offset()

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
            for kept in (self._next, self._settled, self._careful_until, self._rewinds):
                kept.pop(partition, None)

    def idle(self) -> bool:
        """Between batches nothing is under way."""
        return True

    def drain(self, timeout: float) -> None:
        """Between batches nothing is under way."""

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
