"""The topics of a plan, made or checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping

from sage.errors import InvalidTopology, NotFound
from sage.model.names import folded
from sage.plan.plan import Plan
from sage.ports import Admin, KafkaClients, TopicInfo


def prepare_topics(plan: Plan, clients: KafkaClients) -> Mapping[str, TopicInfo]:
    """Make what is missing; check what is there.

    Raises:
        NotFound: a topic that ``from_topic`` reads does not exist.
        InvalidTopology: a topic exists with another number of partitions than the topology asks for, or
            under a name that Kafka takes for the same.
    """
    admin = clients.admin()
    try:
        wanted = [spec.name for spec in plan.topics]
        _refuse_folded(admin, wanted)
        there = admin.describe([*wanted, *plan.external])
        for topic in plan.external:
            if topic not in there:
                raise NotFound(
                    f"topic {topic!r} does not exist on {clients.address}; make it with "
                    f"`sage topics create {topic}`, or produce to it first",
                    where=plan.name,
                )
        _check_partitions(plan, there)
        admin.create([spec for spec in plan.topics if spec.name not in there])
        there |= admin.describe([name for name in wanted if name not in there])  # ours, or another process's just now
        _check_partitions(plan, there)
        return there
    finally:
        admin.close()


def _check_partitions(plan: Plan, there: Mapping[str, TopicInfo]) -> None:
    for spec in plan.topics:
        found = there.get(spec.name)
        if found is not None and found.partitions < spec.partitions:
            raise InvalidTopology(
                f"topic {spec.name!r} has {found.partitions} partitions, the topology asks for {spec.partitions}; "
                "partitions are fixed when a topic is made: ask for as many, or delete the topic",
                where=plan.name,
            )


def _refuse_folded(admin: Admin, wanted: list[str]) -> None:
    there = {folded(info.name): info.name for info in admin.list_topics()}
    for name in wanted:
        other = there.get(folded(name))
        if other is not None and other != name:
            raise InvalidTopology(
                f"topic {name!r} and the existing {other!r} differ only in . and _; Kafka refuses that"
            )
