"""One source task: reads, produces, and keeps its position, in that order.

At-least-once, a position is written only after every record before it was acknowledged, so a crash reads some again,
and gives them the same ids. Exactly-once, it is in the same transaction.
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
from sage.ports import KafkaClients, Tracer
from sage.runtime.retries.failures import Verdict, classify
from sage.runtime.retries.retry import delay_before
from sage.runtime.runs.counters import StepCounters
from sage.runtime.sources.positions import SourcePosition, load_position, position_key, run_name
from sage.runtime.sources.source_output import PlainOutput, SourceOutput, TransactionalOutput
from sage.runtime.steps.codec import BYTES_MARK, encode
from sage.runtime.steps.stage_context import StageSetting
from sage.spec.component import Source, UnboundedSource
from sage.spec.options import RetryPolicy

logger = logging.getLogger("sage.runtime")

AFFIRM_INTERVAL = 1.0
"""Seconds between two words of an exhausted task that it still is, for runs that begin to wait later."""

TAKE_OVER_AGAIN = 0.5
TAKE_OVER_PATIENCE = 60.0
"""Seconds between two tries to take a task over, time for the group to tell its former owner; and after which what
keeps it from being taken over is no passing thing."""

REST_AFTER_A_LOSS = 5.0
"""Seconds in which an exhausted task that was fenced leaves whoever fenced it alone: it may be the task's owner now."""

YIELD_EVERY = 100
"""Records between two looks at deliveries, with a turn for others on the loop."""


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
        self._output = self._make_output()
        self._saved = SourcePosition(fresh_epoch or "")
        self._position: Json = None
        self._giving: Json = None
        self._half_given = False
        self._losses = 0
        self._is_behind = False
        self._between_records = asyncio.Lock()
        self._run = ""

    async def run(self) -> None:
        """Read whenever a run is asked for, until cancelled; the position is safe when this ends."""
        try:
            await self._take_over()
        except BaseException:
            await self._output.close()
            raise
        finished = 0
        try:
            while True:
                while self._orders.number == finished:  # noqa: ASYNC110 - orders come from another thread
                    await asyncio.sleep(0.02)
                number, bounded = self._orders.number, self._orders.bounded
                self._run = run_name(self._setting.worker, number)
                self._saved = replace(self._saved, exhausted=False, run="")
                await self._read_with_retries(bounded=bounded)
                if await self._affirm_until_next(number):
                    finished = number
        finally:
            await self._leave()

    def _make_output(self) -> SourceOutput:
        setting, key = self._setting, position_key(self._step.name, self._task)
        if setting.plan.topology.guarantee != "exactly_once":
            return PlainOutput(self._clients, self._partition, key, self._where)
        return TransactionalOutput(
            self._clients, self._partition, key, self._where, clock=self._clock, stopping=setting.stopping,
            transactional_id=f"{setting.plan.name}.{self._step.name}.{self._task}",
        )  # fmt: skip

    async def _take_over(self) -> None:
        """Go on where the last owner stopped, or start afresh under a new epoch.

        Tried again where another owner fences us, who does not know yet that it is none any more, or that we are.
        """
        await self._output.open()
        began = self._clock.monotonic()
        while True:
            try:
                saved = await self._begun()
                break
            except TransientFailure as error:
                if self._clock.monotonic() - began > TAKE_OVER_PATIENCE:
                    raise error.at(self._where) from error
                logger.warning("%s: taking over again in %.1f s: %s", self._where, TAKE_OVER_AGAIN, error)
                await asyncio.sleep(TAKE_OVER_AGAIN)
        # Exhausted was an earlier run's word: said again before this one has read, it would end runs too soon.
        self._saved = replace(saved, exhausted=False, run="")
        self._position = saved.position

    async def _begun(self) -> SourcePosition:
        """Where to go on, which is written. Raises TransientFailure where that could not be written."""
        saved = await self._load(position_key(self._step.name, self._task))
        if saved is None or (self._fresh_epoch is not None and saved.epoch != self._fresh_epoch):
            saved = SourcePosition(self._fresh_epoch or uuid.uuid4().hex[:12])
            await self._output.save(saved)  # before any record: after a crash the same records get the same ids
        return saved

    async def _load(self, key: bytes) -> SourcePosition | None:
        while True:
            try:
                return await asyncio.to_thread(load_position, self._clients, self._partition, key)
            except (TransientFailure, Unreachable) as error:
                logger.warning("%s: asking again for its position: %s", self._where, error)
                await asyncio.sleep(1.0)

    async def _leave(self) -> None:
        """Write the last position; bounded, since a revoke waits for it.

        Not behind a record that has reached some of its topics only: it is given again, and the transaction that holds
        a part of it is given up.
        """
        self._output.leaving = True
        try:
            if not self._half_given:
                await asyncio.shield(self._checkpoint(exhausted=self._saved.exhausted))
        except (TransientFailure, Unreachable) as error:
            logger.warning("%s: its position stays behind, so some records will be given again: %s", self._where, error)
        finally:
            await self._output.close()

    async def _affirm_until_next(self, number: int) -> bool:
        """Say now and then that all is read, until there is another order; false where it is to be read again, as
        another owner may have gone on meanwhile."""
        spoke = self._clock.monotonic()
        while self._orders.number == number:
            await asyncio.sleep(0.02)
            if self._clock.monotonic() - spoke < AFFIRM_INTERVAL:
                continue
            try:
                await self._output.save(self._saved)
            except TransientFailure as error:
                self._is_behind = True  # what is written may be another owner's, and further than what we know
                logger.warning("%s: reading again in %.1f s: %s", self._where, REST_AFTER_A_LOSS, error)
                await asyncio.sleep(REST_AFTER_A_LOSS)
                await self._go_back()
                return False
            spoke = self._clock.monotonic()
        return True

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
                await self._settle()
                await asyncio.sleep(delay)
                await self._go_back()

    async def _settle(self) -> None:
        """Write how far it got before it failed, so that nothing is given again that was."""
        if self._half_given or self._position == self._saved.position:
            return
        try:
            await self._checkpoint(exhausted=False)
        except (TransientFailure, Unreachable) as error:
            logger.warning("%s: its position stays behind, so some records will be given again: %s", self._where, error)

    async def _go_back(self) -> None:
        """Read again from the position that is written: ours, or that of an owner who fenced us meanwhile."""
        await self._output.rest()
        saved = await self._load(position_key(self._step.name, self._task))
        if saved is not None:
            self._saved = replace(saved, exhausted=False, run="")
        self._position = self._saved.position
        self._losses, self._is_behind = self._output.losses, False

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
        async for given in reading:
            value, position = _pair(given)
            async with self._between_records:
                self._refuse_after_a_loss()  # it waited here for a checkpoint that failed
                self._giving = position
                await self._give(value, position)
                self._position = position
            count += 1
            if count % YIELD_EVERY == 0:
                self._output.serve()
                await asyncio.sleep(0)
        await self._checkpoint(exhausted=True)

    async def _keep_position(self) -> None:
        while True:
            await asyncio.sleep(self._output.interval)
            async with self._between_records:
                # Only here: the reader may just have said that all is read, which this would take back.
                if self._position != self._saved.position:
                    await self._write(exhausted=False)

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
        self._half_given = len(self._targets) > 1
        for topic, written in self._targets:
            await self._output.produce(topic, encode(record.value, written), key, headers, record.timestamp)
        self._half_given = False
        self._counters.read += 1
        self._counters.written += 1

    # -------------------------------------------------------------- checkpoints

    async def _checkpoint(self, *, exhausted: bool) -> None:
        """1. All records are acknowledged. 2. The position is written. 3. It counts as saved.

        No record is given meanwhile, or the broker's answers would never be complete.
        """
        async with self._between_records:
            await self._write(exhausted=exhausted)

    async def _write(self, *, exhausted: bool) -> None:
        reached = SourcePosition(self._saved.epoch, self._position, exhausted, self._run if exhausted else "")
        try:
            self._refuse_after_a_loss()
            await self._output.save(reached)
        except asyncio.CancelledError:
            self._is_behind = True  # nobody waits for the answer any more, so nothing may be built upon it
            raise
        except (TransientFailure, StageStopped):
            self._is_behind = True
            self._position = self._saved.position  # what comes after it may be among what was not taken
            raise
        self._saved = reached

    def _refuse_after_a_loss(self) -> None:
        """Nothing is given or kept behind records that were not taken, until they are read again."""
        if self._is_behind or self._output.losses != self._losses:
            raise TransientFailure("what was given since the last position was not taken", where=self._where)

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


def _pair(given: Any) -> tuple[Any, Json]:
    """What a source yields. Raises StageStopped for anything but a value with its position."""
    try:
        value, position = given
    except (TypeError, ValueError) as error:
        raise StageStopped(
            f"read() must yield (value, position), where position is what it is given to go on from; it gave a "
            f"{type(given).__name__}"
        ) from error
    return value, position


async def _cancelled(*tasks: asyncio.Future[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _place(position: Json) -> str:
    """Where a record is, by the position after it: ``questions.txt:7`` for files."""
    if isinstance(position, dict) and "file" in position and "line" in position:
        return f"{position['file']}:{position['line']}"
    return f"the record up to position {position}"
