"""An actor: one stage in this process, with a consumer on a thread of its own.

The actor polls, hands over, checkpoints and rebalances; what is done with a record is its task's business.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from sage.errors import SageError, TransientFailure
from sage.model.partition import TopicPartition
from sage.ports import CommitRefused, Consumer, RawMessage
from sage.runtime.stage_context import StageSetting
from sage.runtime.task import Task

logger = logging.getLogger("sage.runtime")

CHECKPOINT_INTERVAL = 1.0
"""Seconds between checkpoints under load."""

IDLE_CHECKPOINT_INTERVAL = 0.05
"""Seconds between checkpoints when nothing comes, so that the lag goes to 0 soon after the last record."""

REVOKE_TIMEOUT = 5.0
"""Seconds that a revoke waits for work in progress, all partitions together; then it is cancelled."""


class Actor:
    """Runs a task on the partitions that the group assigns.

    ``run`` is the thread's body; ``step`` is one turn of it, for drivers that have their own thread.
    """

    def __init__(self, setting: StageSetting, consumer: Consumer, task: Task) -> None:
        self.setting = setting
        self.task = task
        self.failure: BaseException | None = None
        self.joined = threading.Event()
        self._consumer = consumer
        self._assigned: set[TopicPartition] = set()
        self._committed: dict[TopicPartition, int] = {}
        self._owed: dict[TopicPartition, int] = {}
        self._paused = False
        self._changed = False
        self._asked_to_stop = threading.Event()
        self._last_checkpoint = 0.0
        self._stop_timeout = 0.0

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.setting.stage.name

    # -------------------------------------------------------------------- life

    def open(self) -> None:
        """Open the steps and join the group. Raises what a step raises, with its place."""
        try:
            self.task.open()
        except SageError as error:
            raise error.at(f'{self.setting.plan.name} step "{self.name}"') from error
        self._consumer.subscribe([i.topic for i in self.setting.stage.inputs], self)

    def run(self, failed: Callable[[Actor], None]) -> None:
        """Work until asked to stop or until something can't be mended; then say so."""
        try:
            while not self._asked_to_stop.is_set():
                self.step()
            self._drain()
        except BaseException as error:  # also a step's sys.exit(): a thread that ends without a word is a hang
            self._record_failure(error)
        finally:
            self._release()
        if self.failure is not None:
            failed(self)

    def stop(self, timeout: float) -> None:
        """Ask the thread to drain within ``timeout`` seconds, checkpoint, and leave the group."""
        self._stop_timeout = timeout
        self._asked_to_stop.set()
        self.setting.stopping.set()

    def _drain(self) -> None:
        self.task.drain(self._stop_timeout)
        self._checkpoint()

    def _record_failure(self, error: BaseException) -> None:
        self.failure = error
        if isinstance(error, SageError):
            error.at(f'{self.setting.plan.name} step "{self.name}"')
        else:
            logger.exception('%s step "%s" stopped', self.setting.plan.name, self.name)

    def _release(self) -> None:
        for close in (self._consumer.close, self.task.close):
            try:
                close()
            except Exception as error:
                if self.failure is None:
                    self._record_failure(error)

    # -------------------------------------------------------------------- turns

    def step(self, timeout: float | None = None) -> bool:
        """One turn: poll, hand over, checkpoint when due. True where records came."""
        room = self._room()
        messages = self._poll(max(room, 1), self._patience() if timeout is None else timeout)
        if self._changed:
            messages = self._after_rebalance(messages)
        if messages or room == 0:  # a full task may have left work of its own
            self.task.accept(messages)
        ends = self._consumer.ends_reached()
        if ends:
            self.task.reached_end({p: end for p, end in ends.items() if p in self._assigned})
        self._rewind()
        now = self.setting.clock.monotonic()
        interval = CHECKPOINT_INTERVAL if messages else IDLE_CHECKPOINT_INTERVAL
        if now - self._last_checkpoint >= interval:
            self._checkpoint()
        return bool(messages)

    def _poll(self, most: int, timeout: float) -> list[RawMessage]:
        """Poll; where spans are made, with one of its own that is linked to the sampled records it brought."""
        tracer = self.setting.tracer
        if not tracer.active:
            return self._consumer.poll(most, timeout)
        started = self.setting.clock.now_ms() * 1_000_000
        messages = self._consumer.poll(most, timeout)
        if messages:
            tracer.poll(messages[0].topic(), messages, group=self.setting.stage.group, started=started)
        return messages

    def _after_rebalance(self, messages: list[RawMessage]) -> list[RawMessage]:
        """Records polled in the turn of a rebalance may be of partitions that just went; new ones join a pause."""
        self._changed = False
        if self._paused:
            self._consumer.pause(sorted(self._assigned))
        return [m for m in messages if TopicPartition(m.topic(), m.partition()) in self._assigned]

    def _room(self) -> int:
        """How many records to ask for; pauses at a full window, resumes at half."""
        room = self.task.room()
        if room == 0 and not self._paused:
            self._consumer.pause(sorted(self._assigned))
            self._paused = True
        elif self._paused and self.task.may_resume():
            self._consumer.resume(sorted(self._assigned))
            self._paused = False
        return room

    def _patience(self) -> float:
        """Seconds to wait for the next record: short where acknowledgements are awaited."""
        if self._paused:
            return 0.005
        return 0.1 if self.task.idle() else 0.02

    # -------------------------------------------------------------- checkpoints

    def _checkpoint(self) -> None:
        """The order that loses nothing.

        1. The task gives the contiguous prefix whose outputs the broker has acknowledged (a synchronous task
           flushes for it; delivery failures give a rewind instead of an offset).
        2. Offsets that moved are committed, and the broker's answer is awaited.
        3. Only then do they count as committed; until then they are owed, also when nothing new is settled.
        """
        self._last_checkpoint = self.setting.clock.monotonic()
        settled = self.task.settled()
        self._rewind()
        self._commit({p: offset for p, offset in settled.items() if p in self._assigned})

    def _commit(self, settled: Mapping[TopicPartition, int]) -> None:
        wanted = {**self._owed, **settled}
        moved = {p: offset for p, offset in wanted.items() if self._committed.get(p) != offset}
        if not moved:
            return
        self._owed = moved
        try:
            self._consumer.commit(moved)
        except CommitRefused:
            logger.info("%s: offsets refused, the partitions have a new owner", self.name)
            return
        except TransientFailure as error:
            logger.warning("%s: commit not answered, trying again: %s", self.name, error)
            return
        self._committed.update(moved)
        self._owed = {}

    def _rewind(self) -> None:
        rewinds = self.task.rewinds()
        if not rewinds:
            return
        for partition, offset in rewinds.items():
            if partition in self._assigned:
                logger.warning("%s: outputs were refused, reading %s again from %d", self.name, partition, offset)
                self._consumer.seek(partition, offset)
        self.task.rewound(tuple(rewinds))

    # --------------------------------------------------------------- rebalance

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """New partitions start with a new tracker; retained ones are not touched."""
        self._changed = True
        self._assigned.update(partitions)
        self.task.assigned(partitions)
        self.joined.set()

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish, commit, let go: inside the callback, while the partitions are still ours."""
        self._changed = True
        drained = self._asked_to_stop.is_set()  # then all the time there was has been given
        settled = self.task.revoked(partitions, 0.0 if drained else REVOKE_TIMEOUT)
        self._commit({p: offset for p, offset in settled.items() if p in self._assigned})
        self._forget(partitions)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Somebody else has them already: commit nothing."""
        self._changed = True
        self.task.lost(partitions)
        self._forget(partitions)

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            self._assigned.discard(partition)
            self._committed.pop(partition, None)
            self._owed.pop(partition, None)
