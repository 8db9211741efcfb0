"""One actor's journal: what its calls gave, kept in a topic, and at hand while their records are not committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from sage.errors import NotFound, StageStopped, TransientFailure, Unreachable
from sage.model.partition import TopicPartition
from sage.model.record import Headers
from sage.ports import Commit, KafkaClients
from sage.runtime.actors.commit_text import JournalMark
from sage.runtime.journal.calls import JournaledCalls, TryTime
from sage.runtime.journal.entry import CallKey, Place
from sage.runtime.journal.marks import sharing
from sage.runtime.journal.reader import Left, read_again, read_left
from sage.runtime.journal.remembered import MEMORY, Remembered, Result
from sage.runtime.journal.writer import ResultWriter, missing_text
from sage.runtime.steps.stage_context import StageSetting

logger = logging.getLogger("sage.runtime")

_PAUSE: Final = 0.5

_OWN_WRITES: Final = 5.0
"""Seconds that a partition which comes back waits for what this actor itself was writing to it."""


class Journal:
    """Keeps results by record, in memory and on the topic. Lives on the event loop; see the package on who calls what.

    Args:
        memory: bytes of results at hand at most; of older ones only their places are kept.
    """

    def __init__(self, setting: StageSetting, clients: KafkaClients, *, memory: int = MEMORY) -> None:
        self._setting = setting
        self._clients = clients
        self._topic = setting.stage.journal_topic
        self._memory = memory
        self._remembered = Remembered(setting.clock.monotonic, memory=memory)
        self._writer = ResultWriter(clients, self._topic, self._where)
        self._writing: dict[asyncio.Task[None], int] = {}
        self._ours: set[TopicPartition] = set()

    @property
    def step(self) -> str:
        """The step whose journal it is."""
        return self._setting.stage.name

    async def open(self) -> None:
        """Make the producer. Raises what the client raises."""
        self._writer.open()

    async def close(self) -> None:
        """Send what is queued, and release the producer."""
        for task in self._writing:
            task.cancel()
        await self._writer.close()

    # ------------------------------------------------------------------------------ partitions

    async def assigned(self, commits: Mapping[TopicPartition, Commit]) -> None:
        """Read what a predecessor left for records that are not committed.

        Several partitions may share one of the journal: those of one number, of several inputs and of the retry
        topic. What is known of it stays when another one comes.

        Args:
            commits: what came, with what is committed of it.

        Raises:
            StageStopped: the journal's topic is gone.
            Unreachable, TransientFailure: the broker gives no answer, and the actor is asked to stop.
        """
        self._ours.update(commits)
        numbers = sorted({at.partition for at in commits})
        await asyncio.gather(*(self._take_over(number, commits) for number in numbers))

    async def _take_over(self, partition: int, commits: Mapping[TopicPartition, Commit]) -> None:
        own = [task for task, number in self._writing.items() if number == partition]
        if own:
            await asyncio.wait(own, timeout=_OWN_WRITES)
        left = await self._read_left(partition, {at: commits[at] for at in commits if at.partition == partition})
        self._remembered.start(partition, left.end)
        for stored in left.results:
            self._remembered.inherit(partition, stored)
        if left.results:
            logger.info("%s: %d results of calls are at hand again", self._where, len(left.results))

    async def _read_left(self, partition: int, given: Mapping[TopicPartition, Commit]) -> Left:
        read = partial(read_left, self._setting, self._clients, partition, given, memory=self._memory)
        while True:
            try:
                return await asyncio.to_thread(read)
            except NotFound as error:
                raise StageStopped(missing_text(self._topic), where=self._where) from error
            except (TransientFailure, Unreachable) as error:
                if self._setting.stopping.is_set():
                    raise
                logger.info("%s: reading the journal again: %s", self._where, error)
                await asyncio.sleep(_PAUSE)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """These went: forget their results. Those on their way still arrive, for the next owner.

        Where another partition that shares the journal's stays, its results stay as well, and go on being kept.
        """
        self._ours.difference_update(partitions)
        kept = {at.partition for at in self._ours}
        for at in partitions:
            if at.partition in kept:
                self._remembered.leave(at)
            else:
                self._remembered.forget(at.partition)

    # ----------------------------------------------------------------------------- one record

    def calls(
        self, at: TopicPartition, record_id: str, *, place: Place | None = None, came: Headers = (),
        time: TryTime | None = None,
    ) -> JournaledCalls:  # fmt: skip
        """The calls of one try of a record; ``end`` them when the try is over.

        Args:
            at: the partition that the record was read from: of an input, or of the retry topic.
            place: where it was first read, in an input; ``None`` for a timer.
            came: its headers, whose trace goes along.
            time: of the try.
        """
        return JournaledCalls(self, at.partition, record_id, place, came, time or TryTime())

    def find(self, partition: int, key: CallKey) -> Result | None:
        """What an earlier try was given; perhaps still on its way to the broker."""
        return self._remembered.find(partition, key)

    def keep(self, partition: int, key: CallKey, place: Place | None, data: bytes, came: Headers) -> Result | None:
        """Remember a result at once, and write it, whatever becomes of the try. ``None``: the partition is gone."""
        if not self._remembered.has(partition):
            return None
        result = self._remembered.begin(partition, key, place, data)
        task = asyncio.get_running_loop().create_task(self._write(partition, key, place, data, came, result))
        result.writing = task
        self._writing[task] = partition
        task.add_done_callback(self._written)
        return result

    async def _write(
        self, partition: int, key: CallKey, place: Place | None, data: bytes, came: Headers, result: Result
    ) -> None:
        first, last = await self._writer.write(partition, key, place, data, came)
        self._remembered.written(partition, result, first, last)

    def _written(self, task: asyncio.Task[None]) -> None:
        del self._writing[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("%s: a result of a call was not kept: %s", self._where, error)

    async def saved(self, result: Result) -> None:
        """Wait until the broker has it. Raises what ``ResultWriter.write`` raises."""
        if result.writing is not None:
            await asyncio.shield(result.writing)  # a try that is given up must not take it along

    async def read_again(self, partition: int, key: CallKey, result: Result) -> bytes | None:
        """A result that only the topic has; ``None`` where it is gone from there. Raises Unreachable."""
        at = TopicPartition(self._topic, partition)
        return await asyncio.to_thread(read_again, self._clients, at, key, result.first, result.last)

    # ------------------------------------------------------------------------------ forgetting

    def finished(self, record_id: str, at: TopicPartition, offset: int) -> None:
        """The record that was read at ``offset`` of ``at`` reached its outcome: once that is committed, it is over."""
        self._remembered.finished(record_id, at, offset)

    def committed(self, at: TopicPartition, next_offset: int) -> None:
        """Everything before ``next_offset`` of ``at`` is committed."""
        self._remembered.committed(at, next_offset)

    def low_mark(self, partition: int) -> JournalMark | None:
        """The lowest offset of the journal that is still needed; its end where nothing is."""
        offset = self._remembered.low_mark(partition)
        if offset is None:
            return None
        all_of_it = sharing(self._setting.stage, self._setting.partitions, partition)
        return JournalMark(offset, whole=self._ours.issuperset(all_of_it))

    @property
    def _where(self) -> str:
        return f'{self._setting.plan.name} step "{self._setting.stage.name}"'
