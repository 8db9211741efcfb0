"""Bringing copies of keyed state up to their changelog, a little at a time between polls."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

from sage.errors import TransientFailure, Unreachable
from sage.ports import Clock, KafkaClients, StateStore
from sage.runtime.state.copying import Copy, Copying

logger = logging.getLogger("sage.runtime")

WORD_EVERY = 5.0
"""Seconds between two lines about a restore that takes its time."""

WAIT = 0.01
"""Seconds that one step waits for records."""


class Progress(NamedTuple):
    """How much of a changelog partition is read, in offsets."""

    done: int
    total: int


class Restores:
    """Reads changelog partitions from where their copies stand to their end.

    Only after the group's committed offsets were read, when the predecessor's transaction is decided; the inputs are
    not fetched meanwhile. Other transactions that are still open are waited for: the broker ends them.
    """

    def __init__(self, clients: KafkaClients, topic: str, *, has_timers: bool, clock: Clock, where: str) -> None:
        self._topic = topic
        self._where = where
        self._copying = Copying(clients, topic, has_timers=has_timers, clock=clock, where=where)
        self._waiting: dict[int, StateStore] = {}
        self._started: dict[int, float] = {}
        self._spoke = time.monotonic()
        self.share: float | None = None
        """How much of what is being restored is there, 0 to 1; ``None`` where nothing is. Any thread may look."""

    def add(self, number: int, store: StateStore) -> None:
        """Restore the copy of that partition."""
        if not self._waiting and not self._copying.copies:
            self._spoke = time.monotonic()
        self._waiting[number] = store
        self._started[number] = time.monotonic()
        self._reckon()

    def remove(self, number: int) -> None:
        """The partition went: what is restored of it stays for the next time."""
        self._waiting.pop(number, None)
        self._copying.end(number)
        self._reckon()
        self._rest()

    def __contains__(self, number: int) -> bool:
        return number in self._waiting or number in self._copying.copies

    @property
    def progress(self) -> dict[int, Progress | None]:
        """Of every partition that is being restored; ``None`` where the broker has not said yet how much it is."""
        found: dict[int, Progress | None] = dict.fromkeys(self._waiting)
        for number, copy in self._copying.copies.items():
            found[number] = Progress(copy.position - copy.first, copy.end - copy.first)
        return found

    def step(self) -> list[int]:
        """Read and apply one batch; the partitions whose copies are complete now.

        Raises:
            DiskFull: a copy can't be written.
            SageError: what another step can't mend either.
        """
        if not self._begin():
            return []
        done = self._finished()
        if self._copying.copies:
            self._copying.apply(self._copying.poll(WAIT))
            done += self._finished()
            self._say()
        if self.share is not None:
            self._reckon()
        self._rest()
        return done

    def _begin(self) -> bool:
        if self._waiting:
            try:
                bounds = self._copying.ask(self._waiting)
            except (Unreachable, TransientFailure) as error:
                logger.info("%s: asking again for %s: %s", self._where, self._topic, error)
                return False
            waiting, self._waiting = self._waiting, {}
            for number, store in waiting.items():
                self._copying.begin(number, store, bounds)
        return True

    def _finished(self) -> list[int]:
        done = [number for number, copy in self._copying.copies.items() if copy.is_complete]
        for number in done:
            copy = self._copying.end(number)
            assert copy is not None, "it was there a line before"
            copy.facts.write(copy.store, copy.end if copy.end > copy.store.applied else None)
            self._tell(number, copy)
        return done

    def _tell(self, number: int, copy: Copy) -> None:
        """Also of one that was warm: how little there was to read says that it was."""
        took = time.monotonic() - self._started[number]
        level = logging.INFO if took < WORD_EVERY else logging.WARNING  # who was told of it is told of its end
        what = f"{self._topic}-{number}"
        logger.log(level, "%s: restored %d changes of %s in %.1f s", self._where, copy.records, what, took)

    def _say(self) -> None:
        if time.monotonic() - self._spoke >= WORD_EVERY and self._copying.copies:
            self._spoke = time.monotonic()
            done = sum(copy.position - copy.first for copy in self._copying.copies.values())
            total = sum(copy.end - copy.first for copy in self._copying.copies.values())
            partitions = len(self._copying.copies)
            logger.warning(
                "%s: restoring state of %d partitions, %d of %d changes (%d %%); their records wait for it",
                self._where, partitions, done, total, 100 * done // max(total, 1),
            )  # fmt: skip

    def _reckon(self) -> None:
        copies = list(self._copying.copies.values())
        done = sum(copy.position - copy.first for copy in copies)
        total = sum(copy.end - copy.first for copy in copies)
        if self._waiting:  # nobody knows yet how much that is
            self.share = 0.0
        else:
            self.share = done / max(total, 1) if copies else None

    def _rest(self) -> None:
        if not self._copying.copies:
            self._copying.rest()

    def close(self) -> None:
        """Release the reader."""
        self._copying.rest()
