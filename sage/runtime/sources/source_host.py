"""The source tasks that this process owns: a group over the positions topic says which."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sage.errors import SageError
from sage.model.names import group_id, offsets_topic
from sage.model.partition import TopicPartition
from sage.ports import KafkaClients
from sage.runtime.concurrent.bridge import Bridge
from sage.runtime.sources.source_task import Orders, SourceTask
from sage.runtime.steps.binding import BoundStep
from sage.runtime.steps.stage_context import StageSetting
from sage.spec.component import Source

logger = logging.getLogger("sage.runtime")

RELEASE_TIMEOUT = 5.0
"""Seconds that a revoke waits for the position to be written; then the new owner reads a little again."""


@dataclass(frozen=True, slots=True)
class HostedSource:
    """A source stage, ready to be read."""

    setting: StageSetting
    source: Source[Any]


class SourceHost:
    """A member of the group that shares out source tasks. Its consumer has its own thread."""

    def __init__(
        self,
        topology: str,
        sources: Mapping[str, HostedSource],
        partitions: Mapping[tuple[str, str], int],
        clients: KafkaClients,
        bridge: Bridge,
        *,
        fresh_epoch: str | None,
        group: str = "",
    ) -> None:
        topic = offsets_topic(topology)
        self._places = {TopicPartition(topic, number): place for place, number in partitions.items()}
        self._topology = topology
        self._sources = sources
        self._clients = clients
        self._bridge = bridge
        self._fresh_epoch = fresh_epoch
        self._assigned: set[TopicPartition] = set()
        self._running: dict[TopicPartition, asyncio.Task[None]] = {}
        self._asked_to_rest = False
        self._rests = False
        self._consumer = clients.consumer(group or group_id(topology, "offsets"))
        self._stopping = threading.Event()
        self.orders = Orders()
        self.failure: BaseException | None = None

    @property
    def tasks(self) -> dict[TopicPartition, tuple[str, str]]:
        """Partition of the positions topic -> (source step, task)."""
        return self._places

    @property
    def steps(self) -> list[BoundStep]:
        """The sources' steps."""
        return [step for hosted in self._sources.values() for step in hosted.setting.steps]

    def open(self) -> None:
        """Open the sources and join the group. Raises what a source raises; nothing is left open then."""
        try:
            for step in self.steps:
                self._open_step(step)
        except BaseException:
            self._consumer.close()
            raise
        self._consumer.subscribe([offsets_topic(self._topology)], self)

    def _open_step(self, step: BoundStep) -> None:
        try:
            self._bridge.call(step.open(1))
        except SageError as error:
            raise error.at(f'{self._topology} source "{step.name}"') from error

    def order(self, *, bounded: bool) -> None:
        """Have all tasks, here and taken over later, read: what is there now, or for ever."""
        self.orders.bounded = bounded
        self.orders.number += 1

    def run(self, failed: Callable[[SourceHost], None]) -> None:
        """The thread's body: stay a member until asked to stop."""
        try:
            while not self._stopping.is_set() and self.failure is None:
                self._consumer.poll(100, 0.1)  # the positions themselves are read by their tasks
                self._tend()
        except BaseException as error:
            self._fail(error)
        finally:
            self._release()
        if self.failure is not None:
            failed(self)

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions of the positions topic that this process has; from any thread."""
        return frozenset(self._assigned)

    def rest(self, is_resting: bool) -> None:
        """Read nothing for now, positions written, and stay a member; or go on. From any thread."""
        self._asked_to_rest = is_resting

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is read now, and all positions are written; from any thread."""
        return self._rests

    def _tend(self) -> None:
        """Start the tasks that should run, or end those that should not."""
        if self._asked_to_rest:
            if self._running:
                self._bridge.call(self._end(list(self._running)))
            self._rests = True
            return
        self._rests = False
        for partition in sorted(self._assigned - self._running.keys()):
            self._bridge.call(self._start(partition))

    def stop(self) -> None:
        """Ask the thread to write positions and leave the group."""
        self._stopping.set()

    def _release(self) -> None:
        try:
            self._consumer.close()
            self.on_revoked(tuple(self._running))
            for step in self.steps:
                self._bridge.call(step.close())
        except Exception as error:
            self._fail(error)

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Start the tasks of these."""
        self._assigned.update(partition for partition in partitions if partition in self._places)
        self._tend()

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop the tasks of these, their positions written."""
        self._assigned.difference_update(partitions)
        self._bridge.call(self._end([p for p in partitions if p in self._running]))

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """The same: a position that is behind only makes the new owner's ids repeat."""
        self.on_revoked(partitions)

    async def _start(self, partition: TopicPartition) -> None:
        step, task = self._places[partition]
        hosted = self._sources[step]
        work = SourceTask(hosted.setting, hosted.source, task, partition, self._clients, self.orders, self._fresh_epoch)
        running = asyncio.get_running_loop().create_task(work.run())
        self._running[partition] = running
        running.add_done_callback(self._ended)

    async def _end(self, partitions: Sequence[TopicPartition]) -> None:
        tasks = [self._running.pop(partition) for partition in partitions]
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=RELEASE_TIMEOUT)
            if late:
                logger.warning("%s: %d source tasks did not write their position in time", self._topology, len(late))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
            if not isinstance(error, SageError):
                logger.error("%s: a source stopped", self._topology, exc_info=error)
