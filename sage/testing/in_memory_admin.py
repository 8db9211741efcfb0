"""The Admin port in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sage.errors import NotFound
from sage.model.partition import TopicPartition
from sage.ports import OPERATIONS, Commit, GroupMember, Operation, Resource, TopicInfo, TopicSpec
from sage.testing.in_memory_state import BrokerState


class InMemoryAdmin:
    """Topics and offsets; made by ``InMemoryClients.admin``."""

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """Those of ``topics`` that exist."""
        with self._state.changed:
            self._state.check_up()
            found = ((name, self._state.topic(name)) for name in topics)
            return {name: topic.info for name, topic in found if topic is not None}

    def list_topics(self) -> list[TopicInfo]:
        """All topics by name."""
        self._state.check_up()
        return self._state.topics()

    def create(self, topics: Sequence[TopicSpec]) -> list[str]:
        """Make the missing ones."""
        self._state.check_up()
        return [topic.name for topic in topics if self._state.create(topic)]

    def delete(self, topics: Sequence[str]) -> None:
        """Remove topics; the others too when one is missing."""
        self._state.check_up()
        missing: NotFound | None = None
        for name in topics:
            try:
                self._state.delete(name)
            except NotFound as error:
                missing = error
        if missing is not None:
            raise missing

    def widen(self, topic: str, partitions: int) -> None:
        """Give a topic that many partitions; one that has as many stays. Raises NotFound where there is none."""
        self._state.check_up()
        self._state.widen(topic, partitions)

    def end_offsets(self, partitions: Sequence[TopicPartition], *, committed: bool = True) -> dict[TopicPartition, int]:
        """The last stable offset of each partition, or its high watermark."""
        with self._state.changed:
            self._state.check_up()
            self._state.end_overdue()
            logs = {where: self._state.log(where) for where in partitions}
            return {where: log.stable_end if committed else log.end for where, log in logs.items()}

    def start_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset of the first record that is still there."""
        with self._state.changed:
            self._state.check_up()
            return {where: self._state.log(where).start for where in partitions}

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int | None]:
        """A group's committed offsets."""
        with self._state.changed:
            self._state.check_up()
            offsets = self._state.group(group).offsets
            return {where: offsets.get(where) for where in partitions}

    def commits(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Commit]:
        """A group's committed offsets with their texts, whatever transaction is open."""
        with self._state.changed:
            self._state.check_up()
            found = self._state.group(group)
            return {where: Commit(found.offsets.get(where), found.texts.get(where, "")) for where in partitions}

    def members(self, group: str) -> list[GroupMember]:
        """The group's members now."""
        with self._state.changed:
            members = self._state.group(group).members
            return [GroupMember(str(each.number), "sage", frozenset(each.owned)) for each in members]

    def offsets_for_time(
        self, partitions: Sequence[TopicPartition], timestamp_ms: int
    ) -> dict[TopicPartition, int | None]:
        """The first offset at or after that time; ``None`` where all records are older."""
        with self._state.changed:
            self._state.check_up()
            return {where: self._state.log(where).at_time(timestamp_ms) for where in partitions}

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Drop everything before these offsets."""
        with self._state.changed:
            self._state.check_up()
            for where, offset in before.items():
                self._state.log(where).trim(offset)

    def list_groups(self) -> list[str]:
        """Names of all groups."""
        self._state.check_up()
        return self._state.groups()

    def delete_groups(self, groups: Sequence[str]) -> None:
        """Forget groups and their offsets."""
        self._state.check_up()
        for name in groups:
            self._state.delete_group(name)

    def allowed(self, kind: Resource, name: str) -> Mapping[Operation, bool]:
        """Everything: nobody is refused here."""
        return dict.fromkeys(OPERATIONS, True)

    def close(self) -> None:
        """Nothing is held."""
