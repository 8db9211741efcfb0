"""The keyed state of one ``process`` stage: a table per partition number, restored, checkpointed, handed over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sage.errors import SageError, StageStopped
from sage.model.identity import joined
from sage.model.partition import TopicPartition
from sage.model.record import Headers
from sage.ports import DeliveryFailure, KafkaClients, RawMessage, StateStores
from sage.runtime.actors.holds import Holds
from sage.runtime.batches.outbox import Outbox
from sage.runtime.state.copy_facts import FRESHEN_MS, CopyFacts
from sage.runtime.state.restore import Progress, Restores
from sage.runtime.state.standby import Standby
from sage.runtime.state.table import PartitionTable
from sage.runtime.state.timer_message import TimerMessage
from sage.runtime.state.timers import Due
from sage.runtime.state.work import KeyedWork
from sage.runtime.state.write_set import WriteSet
from sage.runtime.steps.stage_context import StageSetting, widest_input

logger = logging.getLogger("sage.runtime")

SWEEP_INTERVAL = 1.0
"""Seconds between two looks for keys whose ttl is over."""

STOPPED_AFTER = 60.0
"""Seconds between two turns after which this process is taken to have been stopped, as with its machine. So long after
it nothing is said of its copies: it may have to be told first that they are no longer its own."""

RESTORE_FOR = 0.1
"""Seconds of a turn that a restore may take: partitions that are here already flow on beside it, and a turn may wait as
long for records that do not come."""

CheckSize = Callable[[str, bytes | None, bytes | None, Headers | None], None]
"""``Producer.check_size``: raises RecordTooLarge."""


class Staged(NamedTuple):
    """What one record or timer did, and where."""

    table: PartitionTable
    write_set: WriteSet | None

    def claim(self) -> bool:
        """Whether it may be part of the checkpoint that is being made; it is from then on.

        False while a change of the same key, made by a record of another partition, waits: see ``WriteSet.claim``.
        """
        return self.write_set is None or self.write_set.claim()

    def withdraw(self) -> bool:
        """Take it back, where nothing builds upon it; see ``PartitionTable.withdraw``."""
        return self.write_set is None or self.table.withdraw(self.write_set)


class Fired(NamedTuple):
    """A timer that is due: in whose name it runs, and its table's word for it."""

    partition: TopicPartition
    message: RawMessage
    record_id: str
    due: Due


class StageState:
    """All tables of one actor. See the package's docstring for what is called when, and on which thread.

    Attributes:
        check_size: what refuses a change that the changelog would not take, so that one record pays for it and not
            the stage; ``None`` leaves it to the checkpoint.
        is_ours: whether the group still takes us for a member: asked before changes are written at least once, where
            no transaction keeps what a worker that was frozen writes out of the changelog.
    """

    def __init__(self, setting: StageSetting, clients: KafkaClients, stores: StateStores) -> None:
        (self._step,) = setting.steps
        self._setting = setting
        self._stores = stores
        self._has_timers = self._step.on_timer is not None
        self._tables: dict[int, PartitionTable] = {}
        self._owned: dict[int, frozenset[TopicPartition]] = {}
        self._facts: dict[int, CopyFacts] = {}
        self._swept = 0.0
        self._seen_ms = setting.clock.now_ms()
        self._sure_from = 0.0
        self._too_large: DeliveryFailure | None = None
        self._where = f'{setting.plan.name} step "{setting.stage.name}"'
        self._restores = Restores(
            clients, setting.stage.changelog_topic, has_timers=self._has_timers, clock=setting.clock, where=self._where
        )
        self._standby = self._make_standby(clients)
        self.check_size: CheckSize | None = None
        self.is_ours: Callable[[], bool] = lambda: True

    def _make_standby(self, clients: KafkaClients) -> Standby | None:
        """On the embedded broker all workers share its machine: there is no second copy to be had."""
        setting, stage = self._setting, self._setting.stage
        if not stage.options.standby or clients.is_embedded:
            return None
        return Standby(
            clients, self._stores, setting.clock, place=(setting.plan.name, stage.name),
            changelog=stage.changelog_topic, partitions=setting.partitions[widest_input(stage, setting.partitions)],
            group=stage.group, copies=stage.options.standby, has_timers=self._has_timers,
            owned=lambda: frozenset().union(*tuple(self._owned.values())), client_id=setting.worker,
        )  # fmt: skip

    # ------------------------------------------------------------------------------ partitions

    def assigned(self, partitions: Sequence[TopicPartition], holds: Holds) -> None:
        """Open the copies of these and hold their partitions until they are restored. Raises FolderInUse, DiskFull."""
        for partition in partitions:
            number = partition.partition
            self._owned[number] = self._owned.get(number, frozenset()) | {partition}
            if number not in self._tables:
                self._open(number)
            if number in self._restores:
                holds.hold(partition)

    def _open(self, number: int) -> None:
        if self._standby is not None:
            self._standby.hand_over(number)
        setting, step = self._setting, self._step
        store = self._stores.open(setting.plan.name, setting.stage.name, number)
        self._tables[number] = PartitionTable(store, model=step.state, ttl=step.ttl, has_timers=self._has_timers)
        self._restores.add(number, store)

    def restore(self, holds: Holds) -> None:
        """Go on with what is being restored, for a moment; its partitions flow when that is done. Raises DiskFull."""
        if self._standby is not None:
            self._standby.start()
        until = time.monotonic() + RESTORE_FOR
        done = self._restores.step()
        while self._restores.progress and time.monotonic() < until:
            done += self._restores.step()
        for number in done:
            table = self._tables[number]
            table.load_timers()
            if (facts := CopyFacts.of(table.store)) is not None:
                self._facts[number] = facts
            holds.release(self._owned[number])

    @property
    def progress(self) -> Mapping[int, Progress | None]:
        """Partitions that are being restored, and how much of them is done."""
        return self._restores.progress

    @property
    def restored(self) -> float | None:
        """How much of the state is there, 0 to 1, while it is being restored; else ``None``. Any thread may look."""
        return self._restores.share

    @property
    def standing_by(self) -> frozenset[int]:
        """Partitions of other workers whose copies are kept warm here."""
        return frozenset() if self._standby is None else self._standby.following

    def lost(self, partitions: Iterable[TopicPartition]) -> None:
        """Close the copies of these; what is not kept is forgotten."""
        for partition in partitions:
            owned = self._owned.get(partition.partition, frozenset()) - {partition}
            if owned:
                self._owned[partition.partition] = owned
            else:
                self._close(partition.partition)

    def _close(self, number: int) -> None:
        self._owned.pop(number, None)
        self._restores.remove(number)
        self._freshen(number, 0)
        self._facts.pop(number, None)
        if (table := self._tables.pop(number, None)) is not None:
            table.close()
            if self._standby is not None:
                self._standby.take_back(number)

    def _freshen(self, number: int, older_than_ms: int) -> None:
        """Note in a copy that nothing is missing in it; what is owned is complete."""
        self._notice_a_stop()
        facts, now = self._facts.get(number), self._setting.clock.now_ms()
        is_sure = self._setting.clock.monotonic() >= self._sure_from
        if facts is not None and is_sure and now - facts.complete > older_than_ms:
            self._facts[number] = CopyFacts(facts.topic, now, self._has_timers)
            try:
                self._facts[number].write(self._tables[number].store)
            except SageError as error:  # at worst the copy is made again
                logger.warning("%s: %s", self._where, error)

    def _notice_a_stop(self) -> None:
        """By the wall clock: the other one may stand still while a machine sleeps."""
        clock, before = self._setting.clock, self._seen_ms
        self._seen_ms = clock.now_ms()
        if self._seen_ms - before > STOPPED_AFTER * 1000:
            self._sure_from = clock.monotonic() + STOPPED_AFTER

    def close(self) -> None:
        """Close all copies."""
        if self._standby is not None:
            self._standby.stop()
        for number in list(self._tables):
            self._close(number)
        self._restores.close()

    # ------------------------------------------------------------------------------ one record

    def begin(self, number: int, key: bytes | None) -> KeyedWork:
        """State and timers for a record of that partition number. Raises RecordFailure where there is no key."""
        return self.table(number).begin(key, self._setting.clock.now_ms())

    def finish(self, number: int, work: KeyedWork) -> Staged:
        """The record succeeded: later ones of its key see what it did. Raises RecordFailure, RecordTooLarge."""
        del number  # where it began is where it ends: a new assignment has nothing to do with it
        return Staged(work.table, work.table.stage(work, self._check))

    def _check(self, key: bytes, value: bytes | None) -> None:
        if self.check_size is not None:
            self.check_size(self._setting.stage.changelog_topic, value, key, None)

    def table(self, number: int) -> PartitionTable:
        """The table of a partition number. Raises StageStopped where it is not here."""
        try:
            return self._tables[number]
        except KeyError:
            raise StageStopped(f"state of partition {number} is not here", where=self._where) from None

    # ---------------------------------------------------------------------------------- timers

    def due(self) -> Iterator[Fired]:
        """Timers whose time has come, in partitions that are restored."""
        if not self._has_timers:
            return
        now = self._setting.clock.now_ms()
        topic = self._setting.stage.inputs[0].topic
        for number, table in list(self._tables.items()):
            if number in self._restores:
                continue
            for timer in table.due(now):
                place = f"{self._setting.plan.name}.{self._setting.stage.name}:{timer.name}:{timer.at}"
                record_id = joined(place, timer.key.hex())
                at = next((p for p in self._owned[number] if p.topic == topic), TopicPartition(topic, number))
                message = TimerMessage(at, timer.key, timer.name, timer.at, record_id)
                yield Fired(at, message, record_id, timer)

    @property
    def next_due(self) -> int | None:
        """When the next timer is due, in milliseconds since the epoch."""
        return min((at for table in self._tables.values() if (at := table.next_due) is not None), default=None)

    @property
    def is_at_rest(self) -> bool:
        """Whether all tables are restored, and no timer is overdue, at work, to be tried again or uncommitted."""
        now = self._setting.clock.now_ms()
        return not any(number in self._restores or not table.is_at_rest(now) for number, table in self._tables.items())

    def begin_timer(self, fired: Fired) -> KeyedWork:
        """State and timers for a timer that is due; it is no longer set in it."""
        return self.table(fired.partition.partition).fire(fired.due, self._setting.clock.now_ms())

    def is_set(self, fired: Fired) -> bool:
        """Whether a timer that was due is still to be fired: a record before it may have moved or cancelled it."""
        table = self._tables.get(fired.partition.partition)
        return table is not None and table.is_set(fired.due)

    def timer_done(self, fired: Fired) -> None:
        """Its work is staged."""
        if (table := self._tables.get(fired.partition.partition)) is not None:
            table.fired(fired.due)

    def timer_tries(self, fired: Fired) -> int:
        """How often its work has failed."""
        table = self._tables.get(fired.partition.partition)
        return 0 if table is None else table.tries(fired.due)

    def timer_again(self, fired: Fired, delay: float) -> None:
        """Its work failed and is tried again after ``delay`` seconds."""
        if (table := self._tables.get(fired.partition.partition)) is not None:
            table.again(fired.due, self._setting.clock.now_ms() + int(delay * 1000))

    # ----------------------------------------------------------------------------- checkpoints

    def prepare(self, staged: Iterable[Staged]) -> None:
        """Make these part of the next checkpoint, in the order of their records."""
        for table, write_set in staged:
            if write_set is not None:
                table.prepare(write_set)

    def sweep(self) -> None:
        """Have keys forgotten whose ttl is over, a few at a time, and note that the copies are complete."""
        now = self._setting.clock.monotonic()
        if now - self._swept < SWEEP_INTERVAL:
            return
        self._swept = now
        self._notice_a_stop()
        for number, table in self._tables.items():
            if number not in self._restores:
                table.sweep(self._setting.clock.now_ms())
                self._freshen(number, FRESHEN_MS)

    @property
    def is_dirty(self) -> bool:
        """Whether the next checkpoint has changes."""
        return any(table.is_dirty for table in self._tables.values())

    def write_changes(self, outbox: Outbox) -> None:
        """Produce the prepared changes into the changelog."""
        topic = self._setting.stage.changelog_topic
        for number, table in self._tables.items():
            for key, value in table.prepared.items():
                outbox.send(topic, value, key, None, None, number, table.acknowledged)

    def take_failures(self) -> list[DeliveryFailure]:
        """Changes that the broker did not take, since the last call."""
        failures = [failure for table in self._tables.values() for failure in table.take_failures()]
        self._too_large = next((failure for failure in failures if failure.too_large), self._too_large)
        return failures

    def keep_changes(self) -> None:
        """The changelog has the prepared changes for good: write the copies. Raises DiskFull."""
        for table in self._tables.values():
            if table.is_dirty:
                table.keep()

    def forget_changes(self) -> None:
        """The checkpoint was thrown away; the same changes are prepared again. Raises StageStopped."""
        for table in self._tables.values():
            table.forget_prepared()
        self._stop_if_too_large()

    def drop_changes(self) -> None:
        """The checkpoint was thrown away, and its records are read again. Raises StageStopped."""
        for table in self._tables.values():
            table.drop()
        self._stop_if_too_large()

    def _stop_if_too_large(self) -> None:
        """A change that the broker does not take for its size is not taken the next time either."""
        self.take_failures()
        if (failure := self._too_large) is not None:
            raise StageStopped(
                f"the changelog {failure.topic} did not take a key's state: {failure.reason}; raise its "
                "max.message.bytes, or keep less in one key",
                where=self._where,
            )
