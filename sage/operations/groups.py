"""What ``sage groups list`` and ``sage groups describe`` do: who reads what, and how far behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sage.errors import NotFound
from sage.model.partition import TopicPartition
from sage.ports import Admin, GroupMember, KafkaClients
from sage.spec.suggest import hint

_AT_ONCE = 8
"""Groups asked at the same time: each question is a connection of its own."""


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """One partition that a group reads.

    Attributes:
        committed: the next record to read; ``None`` where nothing is committed yet.
        end: the last stable offset.
        lag: records until there; what is not committed yet counts from the log's start. None in the group that
            shares out a topology's sources (``NAME.offsets``, as its topic): it reads nothing of what is there.
        client: who has the partition now; empty where nobody has.
    """

    topic: str
    partition: int
    committed: int | None
    end: int
    lag: int
    client: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group."""

    name: str
    members: int
    partitions: tuple[PartitionLag, ...]

    @property
    def lag(self) -> int:
        """Over all partitions."""
        return sum(one.lag for one in self.partitions)

    @property
    def topics(self) -> Mapping[str, int]:
        """Lag by topic."""
        found: dict[str, int] = {}
        for one in self.partitions:
            found[one.topic] = found.get(one.topic, 0) + one.lag
        return found


def list_groups(clients: KafkaClients, *, prefix: str = "") -> list[Group]:
    """All groups whose name begins with ``prefix``, by name."""
    with _admin(clients) as admin:
        return lags(admin, [name for name in admin.list_groups() if name.startswith(prefix)])


def describe_group(clients: KafkaClients, name: str) -> Group:
    """One group.

    Raises:
        NotFound: there is no such group.
    """
    with _admin(clients) as admin:
        names = admin.list_groups()
        if name not in names:
            raise NotFound(f"no group {name!r} on {clients.address}; {hint(name, names, what='groups')}")
        (found,) = lags(admin, [name])
        return found


def lags(admin: Admin, groups: Sequence[str]) -> list[Group]:
    """How far each group has come.

    Args:
        admin: of the brokers.
        groups: their names, in the order of the answer.
    """
    partitions = [TopicPartition(info.name, n) for info in admin.list_topics() for n in range(info.partitions)]
    known = set(partitions)

    def ask(group: str) -> tuple[dict[TopicPartition, int], list[GroupMember]]:
        committed = admin.committed(group, partitions)
        members = admin.members(group)
        return {where: offset for where, offset in committed.items() if offset is not None}, members

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sage-groups") as pool:
        answers = list(pool.map(ask, groups))
    read = {where for committed, members in answers for where in committed.keys() | _owned(members) if where in known}
    ends, starts = admin.end_offsets(sorted(read)), admin.start_offsets(sorted(read))
    found = []
    for name, (committed, members) in zip(groups, answers, strict=True):
        clients = {where: member.client_id for member in members for where in member.partitions}
        mine = sorted(where for where in committed.keys() | clients.keys() if where in known)
        rows = (_row(where, committed.get(where), starts[where], ends[where], clients) for where in mine)
        found.append(
            Group(name, len(members), tuple(replace(row, lag=0) if row.topic == name else row for row in rows))
        )
    return found


def input_lags(admin: Admin, read: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Group -> records of the topics that it reads which it has not committed, from the log's start on.

    Args:
        admin: of the brokers.
        read: group -> its topics; those that don't exist count nothing.
    """
    infos = admin.describe(sorted({topic for topics in read.values() for topic in topics}))
    partitions = [TopicPartition(info.name, n) for info in infos.values() for n in range(info.partitions)]
    starts, ends = admin.start_offsets(partitions), admin.end_offsets(partitions)

    def ask(group: str) -> int:
        mine = [where for where in partitions if where.topic in read[group]]
        committed = admin.committed(group, mine)
        return sum(max(0, ends[where] - max(starts[where], committed[where] or 0)) for where in mine)

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sage-groups") as pool:
        return dict(zip(read, pool.map(ask, read), strict=True))


def partition_lags(admin: Admin, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Partition -> records that a group has not committed, of those that have some."""
    committed = admin.committed(group, partitions)
    starts, ends = admin.start_offsets(partitions), admin.end_offsets(partitions)
    lag = {where: ends[where] - max(starts[where], committed[where] or 0) for where in partitions}
    return {where: records for where, records in lag.items() if records > 0}


def _owned(members: Sequence[GroupMember]) -> set[TopicPartition]:
    return {where for member in members for where in member.partitions}


def _row(
    where: TopicPartition, committed: int | None, start: int, end: int, clients: Mapping[TopicPartition, str]
) -> PartitionLag:
    lag = max(0, end - max(start, committed or 0))
    return PartitionLag(where.topic, where.partition, committed, end, lag, clients.get(where, ""))


@contextmanager
def _admin(clients: KafkaClients) -> Iterator[Admin]:
    admin = clients.admin()
    try:
        yield admin
    finally:
        admin.close()
