"""One source task: reads, produces, and keeps its position, in that order.

At-least-once: a position is written only after every record before it was acknowledged, so a crash reads
some again, and gives them the same ids.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from sage.errors import DecodeFailure, RecordFailure, SageError, StageStopped, TransientFailure, Unreachable
from sage.model.identity import SAGE_ID, source_root
from sage.model.json import Json
from sage.model.keys import encode_key
from sage.model.partition import TopicPartition
from sage.model.record import Record
from sage.ports import KafkaClients, Producer, Tracer
from sage.runtime.codec import BYTES_MARK, encode
from sage.runtime.counters import StepCounters
from sage.runtime.failures import Verdict, classify
from sage.runtime.positions import PositionWriter, SourcePosition, load_position, position_key, run_name
from sage.runtime.retry import delay_before
from sage.runtime.stage_context import StageSetting
from sage.spec.component import Source, UnboundedSource
from sage.spec.options import RetryPolicy

logger = logging.getLogger("sage.runtime")

CHECKPOINT_INTERVAL = 1.0
"""Seconds between two positions written."""

AFFIRM_INTERVAL = 1.0
"""Seconds between two words of an exhausted task that it still is, for runs that begin to wait later."""

YIELD_EVERY = 100
"""Records between two looks at deliveries, with a turn for others on the loop."""

FLUSH_TIMEOUT = 5.0


@dataclass(slots=True)
class Orders:
    """What the runner wants of its sources: nothing yet, a bounded run, or an endless one.

    ``number`` rises with each run asked for; a task that has finished run ``n`` waits for ``n + 1``.
    """

    number: int = 0
    bounded: bool = True


class SourceTask:
    """Owns one partition of the positions topic while it is assigned here. Lives on the event loop."""

    def __init__(
        self, setting: StageSetting, source: Source[Any], task: str, partition: TopicPartition,
        clients: KafkaClients, orders: Orders, fresh_epoch: str | None,
    ) -> None:  # fmt: skip
        self._setting = setting
        self._clock = setting.clock
        self._source = source
        self._task = task
        self._partition = partition
        self._clients = clients
        self._orders = orders
        self._fresh_epoch = fresh_epoch
        self._step = setting.steps[0]
        self._targets = setting.targets().main(self._step.name)
        self._counters: StepCounters = self._step.counters
        self._tracer: Tracer = setting.tracer
        self._producer: Producer = clients.producer()
        self._writer = PositionWriter(self._producer, partition, position_key(self._step.name, task))
        self._saved = SourcePosition(fresh_epoch or "")
        self._position: Json = None
        self._giving: Json = None
        self._between_records = asyncio.Lock()
        self._run = ""

    async def run(self) -> None:
        """Read whenever a run is asked for, until cancelled; the position is safe when this ends."""
        await self._take_over()
        finished = 0
        try:
            while True:
                while self._orders.number == finished:  # noqa: ASYNC110 - orders come from another thread
                    await asyncio.sleep(0.02)
                number, bounded = self._orders.number, self._orders.bounded
                self._run = run_name(self._setting.worker, number)
                self._saved = replace(self._saved, exhausted=False, run="")
                await self._read_with_retries(bounded=bounded)
                finished = number
                await self._affirm_until_next(number)
        finally:
            await self._leave()

    async def _take_over(self) -> None:
        """Go on where the last owner stopped, or start afresh under a new epoch."""
        key = position_key(self._step.name, self._task)
        saved = await self._load(key)
        if saved is None or (self._fresh_epoch is not None and saved.epoch != self._fresh_epoch):
            saved = SourcePosition(self._fresh_epoch or uuid.uuid4().hex[:12])
            await self._write(saved)  # before any record: after a crash the same records get the same ids
        # Exhausted was an earlier run's word: said again before this one has read, it would end runs too soon.
        self._saved = replace(saved, exhausted=False, run="")
        self._position = saved.position

    async def _load(self, key: bytes) -> SourcePosition | None:
        while True:
            try:
                return await asyncio.to_thread(load_position, self._clients, self._partition, key)
            except (TransientFailure, Unreachable) as error:
                logger.warning("%s: asking again for its position: %s", self._where, error)
                await asyncio.sleep(1.0)

    async def _leave(self) -> None:
        """Write the last position; bounded, since a revoke waits for it."""
        try:
            await asyncio.shield(self._checkpoint(exhausted=self._saved.exhausted))
        except (TransientFailure, Unreachable) as error:
            logger.warning("%s: its position stays behind, so some records will be given again: %s", self._where, error)
        finally:
            await asyncio.to_thread(self._producer.close)

    async def _affirm_until_next(self, number: int) -> None:
        spoke = self._clock.monotonic()
        while self._orders.number == number:
            await asyncio.sleep(0.02)
            if self._clock.monotonic() - spoke >= AFFIRM_INTERVAL:
                await asyncio.to_thread(self._writer.write, self._saved, FLUSH_TIMEOUT)
                spoke = self._clock.monotonic()

    # ------------------------------------------------------------------ reading

    async def _read_with_retries(self, *, bounded: bool) -> None:
        attempts, policy = 0, self._step.options.retry or RetryPolicy()
        failed_at: Json = None
        while True:
            try:
                await self._read(bounded=bounded)
                return
            except UnboundedSource as error:
                what = "this source never ends, so run_once would not either; use run_streaming()"
                raise StageStopped(what, where=self._where) from error
            except Exception as error:
                # Failing again at the same place is no progress, however much was read again on the way there.
                attempts = attempts + 1 if self._position == failed_at else 1
                failed_at = self._position
                delay = None if classify(error) is not Verdict.RETRY else self._delay(attempts, policy, error)
                if delay is None:
                    raise self._stopped(error) from error
                self._counters.retried += 1
                logger.warning("%s: reading again in %.1f s: %s", self._where, delay, error)
                self._position = self._saved.position
                await asyncio.sleep(delay)

    def _delay(self, attempts: int, policy: RetryPolicy, error: Exception) -> float | None:
        return delay_before(attempts, policy, error, self._setting.random)

    async def _read(self, *, bounded: bool) -> None:
        """Give what the source has, while the position follows by time: also where it has nothing for long."""
        reader = asyncio.ensure_future(self._give_all(bounded=bounded))
        keeper = asyncio.ensure_future(self._keep_position())
        try:
            await asyncio.wait({reader, keeper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(reader, keeper)
        if keeper.done() and not keeper.cancelled():
            keeper.result()  # raises: records were not taken
        reader.result()

    async def _give_all(self, *, bounded: bool) -> None:
        reading: AsyncIterator[tuple[Any, Json]] = self._source.read(self._task, self._position, bounded=bounded)
        count = 0
        async for value, position in reading:
            async with self._between_records:
                self._giving = position
                await self._give(value, position)
                self._position = position
            count += 1
            if count % YIELD_EVERY == 0:
                self._producer.poll(0)
                await asyncio.sleep(0)
        await self._checkpoint(exhausted=True)

    async def _keep_position(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_INTERVAL)
            if self._position != self._saved.position:
                await self._checkpoint(exhausted=False)

    async def _give(self, value: Any, position: Json) -> None:
        record = value if isinstance(value, Record) else Record(value)
        key = encode_key(record.key)
        # A source whose positions differ between two readings names its records itself.
        record_id = source_root(self._saved.epoch, self._step.name, self._task, record.id or position)
        headers: list[tuple[str, bytes | None]] = [*record.headers]
        if not any(name == "traceparent" for name, _ in headers):
            headers[:0] = self._tracer.start_root()
        headers.append((SAGE_ID, record_id.encode()))
        if type(record.value) is bytes:
            headers.append(BYTES_MARK)
        for topic, written in self._targets:
            await self._produce(topic, encode(record.value, written), key, headers, record.timestamp)
        self._counters.read += 1
        self._counters.written += 1

    async def _produce(self, topic: str, data: bytes | None, key: bytes | None, headers: Any, at: int | None) -> None:
        while True:
            try:
                self._producer.produce(topic, data, key, headers, at)
                return
            except BufferError:
                self._producer.poll(0)
                await asyncio.sleep(0.005)

    # -------------------------------------------------------------- checkpoints

    async def _checkpoint(self, *, exhausted: bool) -> None:
        """1. All records are acknowledged. 2. The position is written. 3. It counts as saved.

        No record is given meanwhile, or the broker's answers would never be complete.
        """
        async with self._between_records:
            reached = SourcePosition(self._saved.epoch, self._position, exhausted, self._run if exhausted else "")
            while await asyncio.to_thread(self._producer.flush, FLUSH_TIMEOUT):
                logger.warning("%s: waiting for the broker to take records", self._where)
            self._raise_refusals()
            await self._write(reached)
            self._saved = reached

    def _raise_refusals(self) -> None:
        failures = self._producer.take_failures()
        if not failures:
            return
        self._position = self._saved.position  # what comes after it may be among those that were not taken
        what = f"{failures[0].topic} did not take a record: {failures[0].reason}"
        if all(failure.retriable for failure in failures):
            raise TransientFailure(what)
        raise StageStopped(f"{what}; reading again starts at the last position", where=self._where)

    async def _write(self, position: SourcePosition) -> None:
        while not await asyncio.to_thread(self._writer.write, position, FLUSH_TIMEOUT):
            logger.warning("%s: waiting for the broker to take the position", self._where)

    # ------------------------------------------------------------------- words

    @property
    def _where(self) -> str:
        return f'{self._setting.plan.name} source "{self._step.name}"'

    def _stopped(self, error: Exception) -> SageError:
        if isinstance(error, DecodeFailure):  # the source's own, which names file and line
            return error.at(self._where)
        if isinstance(error, RecordFailure):
            return StageStopped(f"{_place(self._giving)}: {error.message}", where=self._where)
        if isinstance(error, SageError):
            return error.at(self._where)
        after = f"after position {self._position}" if self._position is not None else "at its beginning"
        return StageStopped(f"{type(error).__name__}: {error}; {after}", where=self._where)


async def _cancelled(*tasks: asyncio.Future[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _place(position: Json) -> str:
    """Where a record is, by the position after it: ``questions.txt:7`` for files."""
    if isinstance(position, dict) and "file" in position and "line" in position:
        return f"{position['file']}:{position['line']}"
    return f"the record up to position {position}"
