"""Warm copies of partitions that other workers own, so that a takeover has little to restore."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence

from sage.errors import SageError
from sage.model.partition import TopicPartition
from sage.ports import Clock, GroupMember, KafkaClients, StateStores
from sage.runtime.state.copying import Bounds, Copying

logger = logging.getLogger("sage.runtime")

LOOK_EVERY = 10.0
"""Seconds between two looks at who is in the group."""

WAIT = 0.5
"""Seconds that one poll waits for changes."""

PAUSE = 1.0
"""Seconds after a failure."""


def standby_members(changelog: TopicPartition, members: Collection[str], owner: str | None, copies: int) -> list[str]:
    """Which members keep a copy: the same answer on every worker, and few changes when one comes or goes.

    Rendezvous hashing: every member has a rank for every partition, and the first ``copies`` keep it.
    """

    def rank(member: str) -> bytes:
        return hashlib.blake2b(f"{member}/{changelog}".encode(), digest_size=8).digest()

    return sorted((member for member in members if member != owner), key=rank)[:copies]


def find_self(members: Sequence[GroupMember], owned: Collection[TopicPartition], client_id: str) -> str | None:
    """Which member this process is: the one that has what we have; one without anything is known by its client id,
    or because no other has nothing. ``None`` where that can't be told now."""
    if owned:
        return next((member.member_id for member in members if member.partitions & frozenset(owned)), None)
    idle = [member for member in members if not member.partitions]
    if len(idle) > 1:
        idle = [member for member in idle if member.client_id == client_id]
    return idle[0].member_id if len(idle) == 1 else None


class Standby:
    """Follows changelog partitions on a thread of its own. What goes wrong is logged and tried again: it never stops
    a record.

    Args:
        clients, stores, clock: the world.
        place: topology and step, for the stores.
        changelog: the changelog topic.
        partitions: how many it has.
        group: whose members share the copies out.
        copies: how many of each partition there shall be beside the owner's.
        has_timers: whether to keep the index of timers.
        owned: what this worker owns now; called from the thread.
        client_id: this worker's name.
    """

    def __init__(
        self, clients: KafkaClients, stores: StateStores, clock: Clock, *, place: tuple[str, str], changelog: str,
        partitions: int, group: str, copies: int, has_timers: bool, owned: Callable[[], frozenset[TopicPartition]],
        client_id: str,
    ) -> None:  # fmt: skip
        self._clients = clients
        self._stores = stores
        self._place = place
        self._changelog = changelog
        self._partitions = partitions
        self._group = group
        self._copies = copies
        self._owned = owned
        self._client_id = client_id
        self._where = f'{place[0]} step "{place[1]}" standby'
        self._copying = Copying(clients, changelog, has_timers=has_timers, clock=clock, where=self._where)
        self._taken: set[int] = set()
        self._warm: set[int] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # ---------------------------------------------------------------- called by the owner of the partitions

    def start(self) -> None:
        """Begin to follow; again it changes nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"sage-standby-{self._place[1]}", daemon=True)
            self._thread.start()

    def hand_over(self, number: int) -> None:
        """The partition is ours: its copy is closed when this returns, and left alone."""
        with self._lock:
            self._taken.add(number)
            self._let_go(number)

    def take_back(self, number: int) -> None:
        """The partition went to another worker, and its copy here is closed: it may be followed again."""
        with self._lock:
            self._taken.discard(number)

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread and close all copies."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                logger.warning("%s: still busy after %.0f s, left behind", self._where, timeout)

    @property
    def following(self) -> frozenset[int]:
        """The partitions whose copies are kept here."""
        return frozenset(self._copying.copies)

    # ---------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._guarded()
        finally:
            with self._lock:
                for number in list(self._copying.copies):
                    self._let_go(number)
            self._copying.rest()

    def _guarded(self) -> None:
        try:
            self.look()
            until = time.monotonic() + LOOK_EVERY
            while time.monotonic() < until and not self._stopping.is_set():
                self.turn(WAIT)
        except SageError as error:
            logger.warning("%s: trying again: %s", self._where, error)
            self._stopping.wait(PAUSE)
        except Exception:
            logger.exception("%s: trying again", self._where)
            self._stopping.wait(PAUSE)

    def look(self) -> None:
        """See who is in the group, and follow what is to be kept here from now on. Raises SageError."""
        wanted = self._wanted()
        new = wanted - self.following
        bounds = self._copying.ask(new) if new else None
        with self._lock:  # not held while the broker is asked: an assignment waits for it
            for number in self.following - wanted:
                self._let_go(number)
            if bounds is not None:
                for number in new - self._taken:
                    self._follow(number, bounds)

    def _follow(self, number: int, bounds: Bounds) -> None:
        store = self._stores.open(*self._place, number)
        try:
            self._copying.begin(number, store, bounds)
        except BaseException:
            store.close()
            raise

    def _tell(self) -> None:
        """Say of which copies a takeover would have no more to read than what comes from now on."""
        for number, copy in self._copying.copies.items():
            if copy.is_complete and number not in self._warm:
                self._warm.add(number)
                logger.info(
                    "%s: the copy of %s-%d is warm, at offset %d", self._where, self._changelog, number, copy.position
                )

    def _wanted(self) -> set[int]:
        admin = self._clients.admin()
        try:
            members = admin.members(self._group)
        finally:
            admin.close()
        me = find_self(members, self._owned(), self._client_id)
        names = [member.member_id for member in members]
        wanted: set[int] = set()
        for number in range(self._partitions):
            owner = next((m.member_id for m in members if any(p.partition == number for p in m.partitions)), None)
            if me in standby_members(TopicPartition(self._changelog, number), names, owner, self._copies):
                wanted.add(number)
        return wanted

    def turn(self, timeout: float) -> None:
        """Read and apply what has come. Raises SageError."""
        if not self._copying.copies:
            self._copying.rest()
            self._stopping.wait(timeout)
            return
        messages = self._copying.poll(timeout)
        with self._lock:
            self._copying.apply(messages)
            self._tell()

    def _let_go(self, number: int) -> None:
        self._warm.discard(number)
        if (copy := self._copying.end(number)) is not None:
            copy.store.close()
