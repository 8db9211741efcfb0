"""What ``sage groups reset`` does: move the offsets of a group that nobody is a member of."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sage.errors import NotFound, SageError
from sage.model.duration import seconds
from sage.model.partition import TopicPartition
from sage.ports import Admin, CommitRefused, KafkaClients

EARLIEST, LATEST = "earliest", "latest"


@dataclass(frozen=True, slots=True)
class Target:
    """Where offsets shall go: ``earliest``, ``latest``, an offset, so many records on or back, or a time."""

    text: str
    offset: int | None = None
    shift: int | None = None
    timestamp_ms: int | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """``earliest``, ``latest``, ``42``, ``+10``, ``-10``, ``2h`` (that long ago), or a time in ISO 8601.

        Raises:
            ValueError: it is none of them.
        """
        if text in {EARLIEST, LATEST}:
            return cls(text)
        if text[:1] in {"+", "-"} and text[1:].isdecimal():
            return cls(text, shift=int(text))
        if text.isdecimal():
            return cls(text, offset=int(text))
        try:
            return cls(text, timestamp_ms=_milliseconds(time.time() - seconds(text)))
        except ValueError:
            pass  # no duration: perhaps a time
        try:
            return cls(text, timestamp_ms=_milliseconds(datetime.fromisoformat(text).astimezone().timestamp()))
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"{text!r} is no place; give earliest, latest, an offset, +N or -N records, a duration such as 2h, "
                "or a time such as 2026-01-31T12:00"
            ) from error


@dataclass(frozen=True, slots=True)
class Move:
    """One partition's offset before and after; ``before`` is ``None`` where nothing was committed."""

    topic: str
    partition: int
    before: int | None
    after: int
    end: int

    @property
    def where(self) -> TopicPartition:
        """The partition."""
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class Reset:
    """What a reset does.

    Attributes:
        left: topics of the group that are left as they are, because they were not named.
        has_state: the group's stage keeps state, which a reset does not take back.
    """

    group: str
    moves: tuple[Move, ...]
    left: tuple[str, ...] = ()
    has_state: bool = False

    @property
    def again(self) -> int:
        """Records that would be read once more."""
        return sum(max(0, move.before - move.after) for move in self.moves if move.before is not None)

    @property
    def skipped(self) -> int:
        """Records that would never be read."""
        return sum(max(0, move.after - move.before) for move in self.moves if move.before is not None)


def plan_reset(clients: KafkaClients, group: str, target: Target, topics: Sequence[str] = ()) -> Reset:
    """What would change. A stage's retry topic is moved only where it is named: its records are later tries.

    Args:
        clients: of the brokers.
        group: its name; one that has committed nothing needs ``topics``.
        target: where to.
        topics: those to move; all that the group has committed for, where there are none.

    Raises:
        NotFound: there is no such topic, or nothing that the group has read.
        SageError: the group has members.
    """
    admin = clients.admin()
    try:
        _check_empty(admin, group)
        committed, left = _chosen(admin, group, topics)
        if not committed:
            where = f" in {', '.join(topics)}" if topics else ""
            raise NotFound(f"has read nothing{where}; see `sage groups list`", where=f"group {group}")
        partitions = sorted(committed)
        starts, ends = admin.start_offsets(partitions), admin.end_offsets(partitions)
        wanted = _wanted(admin, target, committed, starts, ends)
        moves = [
            Move(at.topic, at.partition, committed[at], min(max(wanted[at], starts[at]), ends[at]), ends[at])
            for at in partitions
        ]
        return Reset(group, tuple(moves), left, f"{group}.changelog" in admin.describe([f"{group}.changelog"]))
    finally:
        admin.close()


def execute(clients: KafkaClients, planned: Reset) -> None:
    """Commit the new offsets. The texts beside the old ones go: they speak of work that is void then.

    Raises:
        SageError: somebody has joined the group meanwhile; nothing was changed.
    """
    offsets = {move.where: move.after for move in planned.moves if move.after != move.before}
    if not offsets:
        return
    consumer = clients.consumer(planned.group)
    try:
        consumer.assign(offsets)
        consumer.commit(offsets)
    except CommitRefused as error:
        raise _has_members(planned.group) from error
    finally:
        consumer.close()


def _check_empty(admin: Admin, group: str) -> None:
    members = admin.members(group)
    if members:
        raise _has_members(group, len(members))


def _has_members(group: str, count: int | None = None) -> SageError:
    found = "members" if count is None else "a member" if count == 1 else f"{count} members"
    return SageError(
        f"has {found}, who would commit their own offsets over it; stop them first "
        "(`sage topology drain NAME`, or end `sage topology run`)",
        where=f"group {group}",
    )


def _chosen(
    admin: Admin, group: str, topics: Sequence[str]
) -> tuple[dict[TopicPartition, int | None], tuple[str, ...]]:
    """Committed offsets of what is to be moved, and the group's other topics."""
    infos = {info.name: info for info in admin.list_topics()}
    for topic in topics:
        if topic not in infos:
            raise NotFound("does not exist; see `sage topics list`", where=f"topic {topic}")
    partitions = [TopicPartition(info.name, number) for info in infos.values() for number in range(info.partitions)]
    found = admin.committed(group, partitions)
    if topics:
        return {where: offset for where, offset in found.items() if where.topic in topics}, ()
    kept = {where: offset for where, offset in found.items() if offset is not None}
    retry = f"{group}.retry"
    left = (retry,) if any(where.topic == retry for where in kept) else ()
    return {where: offset for where, offset in kept.items() if where.topic != retry}, left


def _wanted(
    admin: Admin,
    target: Target,
    committed: Mapping[TopicPartition, int | None],
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> Mapping[TopicPartition, int]:
    if target.text == EARLIEST:
        return starts
    if target.text == LATEST:
        return ends
    if target.offset is not None:
        return dict.fromkeys(committed, target.offset)
    if target.shift is not None:
        return {where: _or(offset, starts[where]) + target.shift for where, offset in committed.items()}
    assert target.timestamp_ms is not None
    found = admin.offsets_for_time(sorted(committed), target.timestamp_ms)
    return {where: _or(offset, ends[where]) for where, offset in found.items()}


def _milliseconds(moment: float) -> int:
    """As brokers take it: what is negative has other meanings there, and no record is older than 1970."""
    return max(0, int(moment * 1000))


def _or(offset: int | None, otherwise: int) -> int:
    return otherwise if offset is None else offset
