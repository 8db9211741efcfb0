"""Consumer groups of the in-memory broker: members, shares, commits.

As in KIP-848 the broker decides who shall have what, and each member walks there in its own polls: first it
gives away what is no longer its share, then it takes what nobody else holds any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sage.model.partition import TopicPartition


@dataclass(slots=True, eq=False)
class Member:
    """One consumer in a group.

    Attributes:
        number: rises with each member that joins; shares are dealt in this order.
        topics: what it subscribed to.
        companions: topics whose partitions come with those of the same number.
        owned: what it holds now.
        share: what it shall hold.
        lost: what was given away behind its back.
        is_in: false after it left or was expelled.
    """

    number: int
    topics: frozenset[str]
    companions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    owned: set[TopicPartition] = field(default_factory=set)
    share: set[TopicPartition] = field(default_factory=set)
    lost: set[TopicPartition] = field(default_factory=set)
    is_in: bool = True


@dataclass(slots=True)
class Group:
    """One group. Not locked: the broker's lock is held."""

    name: str
    partitions_of: Callable[[str], int]
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    texts: dict[TopicPartition, str] = field(default_factory=dict)
    unstable: list[set[TopicPartition]] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    generation: int = 0
    _joined: int = 0

    def join(self, topics: frozenset[str], companions: Mapping[str, Sequence[str]]) -> Member:
        """A new member; shares change."""
        self._joined += 1
        member = Member(self._joined, topics, companions)
        self.members.append(member)
        self.rebalance()
        return member

    def leave(self, member: Member) -> None:
        """A member that goes, or is gone: others may take what it held."""
        if member.is_in:
            member.is_in = False
            self.members.remove(member)
            member.owned.clear()
            member.share.clear()
            self.rebalance()

    def expel(self, member: Member) -> None:
        """Give a member's partitions away behind its back, as after a missed session time-out."""
        member.lost |= member.owned
        self.leave(member)

    def rejoin(self, member: Member) -> None:
        """Take an expelled member back; it holds nothing at first."""
        self._joined += 1
        member.number, member.is_in = self._joined, True
        self.members.append(member)
        self.rebalance()

    def rebalance(self) -> None:
        """Deal the partitions anew: even shares, and everybody keeps what it can."""
        self.generation += 1
        for member in self.members:
            member.share = set()
        topics = sorted({topic for member in self.members for topic in member.topics})
        for topic in topics:
            readers = sorted((each for each in self.members if topic in each.topics), key=lambda each: each.number)
            partitions = [TopicPartition(topic, number) for number in range(self.partitions_of(topic))]
            self._deal(partitions, readers)

    @staticmethod
    def _deal(partitions: list[TopicPartition], readers: list[Member]) -> None:
        least, more = divmod(len(partitions), len(readers))
        shares: dict[int, list[TopicPartition]] = {each.number: [] for each in readers}
        free = []
        for where in partitions:
            owner = next((each for each in readers if where in each.owned), None)
            full = sum(1 for share in shares.values() if len(share) > least)
            limit = least + 1 if full < more else least
            if owner is not None and len(shares[owner.number]) < limit:
                shares[owner.number].append(where)
            else:
                free.append(where)
        for where in free:
            number = min(shares, key=lambda each: (len(shares[each]), each))
            shares[number].append(where)
        for each in readers:
            share = set(shares[each.number])
            each.share |= share
            each.share |= {
                TopicPartition(name, at.partition) for at in share for name in each.companions.get(at.topic, ())
            }

    def to_revoke(self, member: Member) -> set[TopicPartition]:
        """What a member has to give away."""
        return member.owned - member.share

    def to_assign(self, member: Member) -> set[TopicPartition]:
        """What a member may take: its share, less what others still hold."""
        held = {where for other in self.members if other is not member for where in other.owned}
        return member.share - member.owned - held

    def commit(self, offsets: Mapping[TopicPartition, int], texts: Mapping[TopicPartition, str] | None = None) -> None:
        """Store offsets with their texts; who may is checked by the caller."""
        self.offsets.update(offsets)
        for where in offsets:
            self.texts[where] = (texts or {}).get(where, "")

    def is_unstable(self, partitions: Sequence[TopicPartition]) -> bool:
        """Whether an open transaction would move one of these."""
        return any(held & set(partitions) for held in self.unstable)
