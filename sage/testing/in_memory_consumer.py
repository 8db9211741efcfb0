"""The Consumer port in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sage.errors import InvalidTopology, NotFound, TransientFailure
from sage.model.partition import TopicPartition
from sage.ports import CommitRefused, RawMessage, RebalanceListener
from sage.testing.in_memory_groups import Group, Member
from sage.testing.in_memory_state import BrokerState

_EARLIEST, _LATEST = -2, -1


@dataclass(frozen=True, slots=True)
class GroupMetadata:
    """What a transaction shows to prove that its consumer is a member."""

    group: str
    member: int
    generation: int


class InMemoryConsumer:
    """One consumer; made by ``InMemoryClients.consumer``."""

    max_poll_interval = 300.0

    def __init__(
        self, state: BrokerState, group: str | None, read_from: Literal["earliest", "latest"] = "earliest"
    ) -> None:
        self._state = state
        self._group_name = group
        self._read_from = read_from
        self._member: Member | None = None
        self._listener: RebalanceListener | None = None
        self._subscribed: frozenset[str] = frozenset()
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._ends: dict[TopicPartition, int] = {}
        self._seen_ends: dict[TopicPartition, int] = {}
        self._turn = 0
        self._closed = False

    # ------------------------------------------------------------------------------------- membership

    def subscribe(
        self,
        topics: Sequence[str],
        listener: RebalanceListener,
        *,
        companions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Join the group."""
        with self._state.changed:
            self._subscribed, self._listener = frozenset(topics), listener
            self._member = self._group.join(self._subscribed, companions or {})
            self._state.changed.notify_all()

    def assign(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets, outside any group."""
        with self._state.changed:
            self._positions.clear()
            self._ends.clear()
            self._seen_ends.clear()
            for where, offset in offsets.items():
                self._positions[where] = self._resolved(where, offset)

    def assignment(self) -> frozenset[TopicPartition]:
        """What is ours now."""
        return frozenset(self._member.owned if self._member is not None else self._positions)

    def group_metadata(self) -> object | None:
        """For ``Producer.send_offsets``; ``None`` while this is no member."""
        if self._member is None or not self._member.is_in:
            return None
        return GroupMetadata(self._group.name, self._member.number, self._group.generation)

    def lose(self) -> None:
        """For tests: the group gives this member's partitions away; its next poll calls ``on_lost``."""
        with self._state.changed:
            if self._member is not None:
                self._group.expel(self._member)
                self._state.changed.notify_all()

    def abandon(self) -> None:
        """For tests: the process died. No callback runs; the others take over at once."""
        with self._state.changed:
            if self._member is not None:
                self._group.leave(self._member)
            self._closed = True
            self._state.changed.notify_all()

    @property
    def _group(self) -> Group:
        if self._group_name is None:
            raise InvalidTopology("this consumer has no group")
        return self._state.group(self._group_name)

    # ----------------------------------------------------------------------------------------- polling

    def poll(self, max_messages: int, timeout: float) -> list[RawMessage]:
        """Records that are there; waits for the first only."""
        deadline = time.monotonic() + timeout
        while True:
            self._rebalance()
            with self._state.changed:
                if self._state.faults.polls:
                    raise self._state.faults.polls.pop(0)
                missing = sorted(name for name in self._subscribed if self._state.topic(name) is None)
                if missing:
                    raise NotFound(f"consume: {missing[0]} does not exist on the in-memory broker")
                seen = dict(self._seen_ends)
                batch = self._fetch(max_messages)
                left = deadline - time.monotonic()
                if batch or self._seen_ends != seen or left <= 0:  # an end reached is news too
                    return batch
                if not self._must_rebalance():
                    self._state.changed.wait(left)

    def ends_reached(self) -> Mapping[TopicPartition, int]:
        """End offsets of the partitions that were read to the end since the last call."""
        ends, self._ends = self._ends, {}
        return ends

    def _fetch(self, max_messages: int) -> list[RawMessage]:
        batch: list[RawMessage] = []
        if self._state.is_down:
            return batch
        self._state.end_overdue()
        order = sorted(self._positions)
        self._turn += 1
        for index in range(len(order)):
            where = order[(index + self._turn) % len(order)]  # so that no partition starves the others
            if where not in self._paused:
                self._fetch_from(where, batch, max_messages)
        return batch

    def _fetch_from(self, where: TopicPartition, batch: list[RawMessage], max_messages: int) -> None:
        if self._state.topic(where.topic) is None:
            return
        log = self._state.log(where)
        if not log.start <= self._positions[where] <= log.end:
            self._positions[where] = log.start if self._read_from == "earliest" else log.stable_end
        for position, message in log.read(self._positions[where]):
            if message is not None:
                if len(batch) >= max_messages:
                    return
                batch.append(message)
                self._ends.pop(where, None)
            self._positions[where] = position
        if self._seen_ends.get(where) != self._positions[where]:
            self._seen_ends[where] = self._ends[where] = self._positions[where]

    # --------------------------------------------------------------------------------------- rebalance

    def _must_rebalance(self) -> bool:
        member = self._member
        if member is None:
            return False
        return bool(member.lost or not member.is_in or self._group.to_revoke(member) or self._group.to_assign(member))

    def _rebalance(self) -> None:
        member, listener = self._member, self._listener
        if member is None or listener is None or self._state.is_down:
            return
        if member.lost:
            lost, member.lost = sorted(member.lost), set()
            self._forget(lost)
            listener.on_lost(lost)
        with self._state.changed:
            if not member.is_in and not self._closed:
                self._group.rejoin(member)
            revoked = sorted(self._group.to_revoke(member))
        if revoked:
            self._revoke(member, revoked, listener.on_revoked)
        with self._state.changed:
            assigned = sorted(self._group.to_assign(member))
            member.owned |= set(assigned)
            for where in assigned:
                committed = self._group.offsets.get(where)
                start = _EARLIEST if self._read_from == "earliest" else _LATEST
                self._positions[where] = self._resolved(where, start if committed is None else committed)
        if assigned:
            listener.on_assigned(assigned)

    def _revoke(
        self,
        member: Member,
        partitions: Sequence[TopicPartition],
        tell: Callable[[Sequence[TopicPartition]], None],
    ) -> None:
        try:
            tell(partitions)
        finally:
            with self._state.changed:
                member.owned -= set(partitions)
                self._forget(partitions)
                self._state.changed.notify_all()

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        for where in partitions:
            self._positions.pop(where, None)
            self._ends.pop(where, None)
            self._seen_ends.pop(where, None)
            self._paused.discard(where)

    def _resolved(self, where: TopicPartition, offset: int) -> int:
        log = self._state.log(where)
        return {_EARLIEST: log.start, _LATEST: log.stable_end}.get(offset, offset)

    # ---------------------------------------------------------------------------------------- position

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop fetching."""
        self._paused |= set(partitions) & self.assignment()

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Fetch again."""
        with self._state.changed:
            self._paused -= set(partitions)
            self._state.changed.notify_all()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from here."""
        with self._state.changed:
            self._positions[partition] = self._resolved(partition, offset)
            self._ends.pop(partition, None)
            self._seen_ends.pop(partition, None)
            self._state.changed.notify_all()

    def commit(
        self, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str] | None = None
    ) -> None:
        """Commit, all or nothing."""
        with self._state.changed:
            if self._state.faults.commits:
                raise self._state.faults.commits.pop(0)
            strangers = [str(where) for where in offsets if where not in self.assignment()]
            if strangers:
                raise CommitRefused(f"not ours any more: {', '.join(strangers)}")
            self._state.check_up()
            self._group.commit(offsets, metadata)

    def committed(
        self, partitions: Sequence[TopicPartition], timeout: float = 10.0
    ) -> dict[TopicPartition, int | None]:
        """The group's committed offsets."""
        with self._state.changed:
            self._state.check_up()
            self._state.end_overdue()
            if self._group.is_unstable(partitions):
                raise TransientFailure("committed offsets: a transaction on them is open")
            return {where: self._group.offsets.get(where) for where in partitions}

    def close(self) -> None:
        """Give everything back and leave."""
        if self._closed:
            return
        self._closed = True
        member, listener = self._member, self._listener
        if member is None or listener is None:
            self._positions.clear()
            return
        try:
            if member.lost:
                listener.on_lost(sorted(member.lost))
            if member.owned:
                self._revoke(member, sorted(member.owned), listener.on_revoked)
        finally:
            with self._state.changed:
                self._group.leave(member)
                self._positions.clear()
                self._state.changed.notify_all()
