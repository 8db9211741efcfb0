"""Keyed state of one assignment of one partition: an overlay of what is not committed, over a store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import orjson

from sage.errors import RecordFailure
from sage.ports import DeliveryFailure, StateStore
from sage.runtime.state.envelope import Envelope, timers_of
from sage.runtime.state.recent import RecentValues
from sage.runtime.state.timers import Due, TimerHeap
from sage.runtime.state.work import UNCHANGED, KeyedWork
from sage.runtime.state.write_set import WriteSet

STATE, TIMERS, FACTS = b"s", b"t", b"m"
"""What the keys of a store begin with: entries, timers of those entries that have any, what is known of the copy."""


class PutOff(NamedTuple):
    """A timer that failed: the time that it is set for, when to try it again, and how often it was tried."""

    at: int
    again: int
    tries: int


class PartitionTable:
    """Begin a work, stage what it did; prepare what a checkpoint holds; keep it, forget it, or drop all.

    ``begin``, ``fire``, ``stage`` and ``fired`` may run on another thread than the rest.

    Args:
        store: the copy on this machine; closed with the table.
        model: the pydantic model of one key's state; ``None`` is a mapping.
        ttl: seconds after a key's last change until it is forgotten.
        has_timers: whether the step is called when a timer is due.
    """

    def __init__(self, store: StateStore, *, model: Any, ttl: float | None, has_timers: bool) -> None:
        self.store = store
        self.model = model
        self.ttl = ttl
        self.has_timers = has_timers
        self._overlay: dict[bytes, WriteSet] = {}
        self._recent = RecentValues()
        self._prepared: dict[bytes, WriteSet] = {}
        self._swept: list[WriteSet] = []
        self._heap = TimerHeap()
        self._firing: set[Due] = set()
        self._put_off: dict[tuple[bytes, str], PutOff] = {}
        self._sweep_from: bytes | None = None
        self._number = 0
        self._acknowledged = 0
        self._failures: list[DeliveryFailure] = []
        self._is_closed = False
        self._lock = threading.Lock()

    # ------------------------------------------------------------------------------ one record

    def begin(self, key: bytes | None, now_ms: int) -> KeyedWork:
        """State and timers of a key, as the records before this one left them.

        Raises:
            RecordFailure: there is no key.
        """
        if key is None:
            raise RecordFailure("the record has no key, so it has no state; put key_by before this step")
        return KeyedWork(self, key, self.read(key), now_ms)

    def fire(self, due: Due, now_ms: int) -> KeyedWork:
        """The same for a timer, which is no longer set in it, unless it was set to another time meanwhile."""
        work = self.begin(due.key, now_ms)
        if work.timers.due.get(due.name) == due.at:
            work.timers.cancel(due.name)
        return work

    def is_set(self, due: Due) -> bool:
        """Whether a timer that was due is still to be fired: it may have been moved or cancelled since."""
        return timers_of(self.read(due.key)).get(due.name) == due.at

    def stage(self, work: KeyedWork, check: Callable[[bytes, bytes | None], None] | None = None) -> WriteSet | None:
        """Later records of the key see this from now on; ``None`` where nothing changed.

        A table that was closed meanwhile takes nothing: its partition is another's.

        Args:
            work: what ``begin`` or ``fire`` gave.
            check: raises for a (key, value) that the changelog would not take.

        Raises:
            RecordFailure: the state has no JSON form; or what ``check`` raises.
        """
        value = self.outcome(work, check)
        return None if value is UNCHANGED else self.put(work, value)

    def outcome(self, work: KeyedWork, check: Callable[[bytes, bytes | None], None] | None = None) -> Any:
        """What a work wants kept, or ``UNCHANGED``; nobody sees it yet. Arguments and errors as for ``stage``."""
        value = work.result()
        if value is UNCHANGED or self._is_closed:
            return UNCHANGED
        if check is not None:
            check(work.key, value)
        return value

    def put(self, work: KeyedWork, value: bytes | None) -> WriteSet:
        """Have later records of the key see what ``outcome`` gave."""
        with self._lock:
            staged = self._staged(work.key, value)
            if work.has_touched_timers:
                for name, at in work.timers.due.items():
                    self._heap.arm(work.key, name, at)
        return staged

    def put_and_prepare(self, work: KeyedWork, value: bytes | None) -> None:
        """``put`` and ``prepare``, for a stage whose records run one after the other and are checkpointed together.

        What an earlier record of the key did is not needed by itself then: its write-set takes the new value.
        """
        there = self._prepared.get(work.key)
        if there is None or work.has_touched_timers or self._overlay.get(work.key) is not there:
            self.prepare(self.put(work, value))
        else:
            there.value = value

    def _staged(self, key: bytes, value: bytes | None) -> WriteSet:
        self._number += 1
        staged = self._overlay[key] = WriteSet(key, value, self._number, self._overlay.get(key))
        return staged

    def withdraw(self, write_set: WriteSet) -> bool:
        """Take back a change that is in no checkpoint, as its record was given up after it had run; whether that is
        done. Not where a later record of the key has built upon it: what that one made of it would have to be made
        again. A record of the key that is at work just now has read it, and keeps it with what it does."""
        with self._lock:
            if write_set.claimed or self._overlay.get(write_set.key) is not write_set:
                return False
            if write_set.before is not None and not write_set.before.final:
                self._overlay[write_set.key] = write_set.before
            else:
                del self._overlay[write_set.key]
        timers = timers_of(self.read(write_set.key))
        with self._lock:
            for name, at in timers.items():  # one that it had moved or cancelled may have been met meanwhile
                self._heap.arm(write_set.key, name, at)
        return True

    def fired(self, due: Due) -> None:
        """A timer's work is staged, or given up."""
        self._firing.discard(due)
        if self._failure_of(due) is not None:
            del self._put_off[due.key, due.name]

    def read(self, key: bytes) -> bytes | None:
        """The entry as the records before left it."""
        with self._lock:
            if (staged := self._overlay.get(key)) is not None:
                return staged.value
            if key in self._recent:
                return self._recent[key]
        found = self.store.get(STATE + key)
        with self._lock:
            if key not in self._overlay:
                self._recent.put(key, found)
        return found

    # ----------------------------------------------------------------------------- checkpoints

    def prepare(self, write_set: WriteSet) -> None:
        """Make it part of the next checkpoint; of a key's several only the last counts."""
        write_set.claimed = True
        there = self._prepared.get(write_set.key)
        if there is None or there.number < write_set.number:
            self._prepared[write_set.key] = write_set

    @property
    def prepared(self) -> dict[bytes, bytes | None]:
        """What the next checkpoint writes to the changelog: one record for each changed key."""
        return {key: write_set.value for key, write_set in self._prepared.items()}

    @property
    def is_dirty(self) -> bool:
        """Whether the next checkpoint has changes."""
        return bool(self._prepared)

    def acknowledged(self, failure: DeliveryFailure | None, partition: int, offset: int) -> None:
        """The broker's answer for one record of the changelog."""
        del partition
        if failure is not None:
            self._failures.append(failure)
        else:
            self._acknowledged = max(self._acknowledged, offset + 1)

    def take_failures(self) -> list[DeliveryFailure]:
        """Changes that the broker did not take, since the last call."""
        failures, self._failures = self._failures, []
        return failures

    def keep(self) -> None:
        """The checkpoint is committed, and the changelog has it: write the copy. Raises DiskFull."""
        writes: dict[bytes, bytes | None] = {}
        for key, write_set in self._prepared.items():
            add_entry(writes, key, write_set.value, has_timers=self.has_timers)
        self.store.apply(writes, max(self._acknowledged, self.store.applied))
        with self._lock:
            for key, write_set in self._prepared.items():
                write_set.committed()
                self._recent.put(key, write_set.value)
                if self._overlay.get(key) is write_set:
                    del self._overlay[key]
        self._prepared = {}
        self._swept = []

    def forget_prepared(self) -> None:
        """The checkpoint was thrown away; its write-sets are prepared again, but for the sweep's."""
        for write_set in self._prepared.values():
            write_set.release()
        self._prepared = {}
        with self._lock:
            for write_set in self._swept:
                write_set.committed()  # nobody waits for it, and it will be swept again
                if self._overlay.get(write_set.key) is write_set:
                    del self._overlay[write_set.key]
        self._swept = []

    def drop(self) -> None:
        """Everything that is not kept is thrown away: its records are read again."""
        self._prepared, self._swept = {}, []
        self._firing.clear()
        self._put_off.clear()
        with self._lock:
            self._overlay.clear()
        self.load_timers()

    def close(self) -> None:
        """Release the copy; what is not kept is forgotten, and nothing more is taken."""
        self._is_closed = True
        self.store.close()

    # ---------------------------------------------------------------------------------- timers

    def load_timers(self) -> None:
        """Find what is set in the store: after a restore, or a drop."""
        if not self.has_timers:
            return
        found = [
            Due(place[len(TIMERS) :], name, at)
            for place, raw in self.store.scan(TIMERS)
            for name, at in orjson.loads(raw).items()
        ]
        with self._lock:
            self._heap.fill(found)

    @property
    def next_due(self) -> int | None:
        """When the next timer is due at the earliest, in milliseconds since the epoch."""
        with self._lock:
            return self._heap.next

    def is_at_rest(self, now_ms: int) -> bool:
        """Whether no timer is overdue, at work or to be tried again, and nothing staged is uncommitted."""
        with self._lock:
            is_due = self._heap.next is not None and self._heap.next <= now_ms
            return not (is_due or self._overlay or self._firing or self._put_off)

    def due(self, now_ms: int, limit: int = 100) -> list[Due]:
        """Timers whose time has come, each once until it is ``fired`` or to be fired ``again``.

        ``limit``: so many may be at work; a million that are due at once must not fill the memory.
        """
        found: list[Due] = []
        while len(self._firing) < limit:
            with self._lock:
                met = self._heap.pop(now_ms)
            if met is None:
                break
            at = timers_of(self.read(met.key)).get(met.name)
            failed = self._put_off.get((met.key, met.name))
            if failed is not None and failed.at != at:  # moved or cancelled while it waited for its next try
                del self._put_off[met.key, met.name]
                failed = None
            if at is None:
                continue  # cancelled
            timer = Due(met.key, met.name, at)
            if timer in self._firing:
                continue
            if (later := at if failed is None else max(at, failed.again)) > now_ms:
                with self._lock:
                    self._heap.arm(met.key, met.name, later)
                continue
            self._firing.add(timer)
            found.append(timer)
        return found

    def again(self, due: Due, at: int) -> None:
        """A timer's work failed and is tried again at ``at``: it stays set for its own time."""
        self._firing.discard(due)
        self._put_off[due.key, due.name] = PutOff(due.at, at, self.tries(due) + 1)
        with self._lock:
            self._heap.arm(due.key, due.name, at)

    def tries(self, due: Due) -> int:
        """How often its work has failed."""
        failed = self._failure_of(due)
        return 0 if failed is None else failed.tries

    def _failure_of(self, due: Due) -> PutOff | None:
        failed = self._put_off.get((due.key, due.name))
        return failed if failed is not None and failed.at == due.at else None

    # ------------------------------------------------------------------------------------- ttl

    def sweep(self, now_ms: int, limit: int = 500) -> list[WriteSet]:
        """Look at ``limit`` keys, and forget the state of those that have not changed for ``ttl``.

        What is forgotten is prepared here. A key that a record has changed, or is changing, is left alone: the
        overlay has it, or will have what that record makes of it, after this.
        """
        if self.ttl is None:
            return []
        swept: list[WriteSet] = []
        begin, self._sweep_from = self._sweep_from, None
        for seen, (place, raw) in enumerate(self.store.scan(STATE, begin)):
            if seen >= limit:
                self._sweep_from = place
                break
            key, envelope = place[len(STATE) :], Envelope.decode(raw)
            if envelope.state is None or not envelope.is_expired(now_ms, self.ttl):
                continue
            with self._lock:
                if key not in self._overlay:
                    swept.append(self._staged(key, Envelope(timers=envelope.timers).encode()))
        for write_set in swept:
            self.prepare(write_set)
        self._swept += swept
        return swept

    def entries(self) -> Iterator[tuple[bytes, Envelope]]:
        """All keys that are kept."""
        for place, raw in self.store.scan(STATE):
            yield place[len(STATE) :], Envelope.decode(raw)


def add_entry(writes: dict[bytes, bytes | None], key: bytes, value: bytes | None, *, has_timers: bool) -> None:
    """Add to ``writes`` what one record of the changelog becomes in the store."""
    writes[STATE + key] = value
    if has_timers:
        timers = timers_of(value)
        writes[TIMERS + key] = orjson.dumps(timers) if timers else None
