"""The topics of a plan, made or checked before anything runs."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from sage.errors import InvalidTopology, NotFound, Unreachable
from sage.model.names import folded, offsets_topic
from sage.plan.plan import Plan
from sage.plan.topics import AS_FOUND
from sage.ports import Admin, KafkaClients, TopicInfo

HEARSAY: Final = 30.0
"""Seconds for a broker that has just started to hear of the topics that the others already serve."""


def prepare_topics(plan: Plan, clients: KafkaClients) -> Mapping[str, TopicInfo]:
    """Make what is missing; check what is there.

    Raises:
        NotFound: a topic that ``from_topic`` reads does not exist.
        InvalidTopology: a topic exists with fewer partitions than the topology asks for, and is not only written
            (see ``Plan.given``), or it exists under a name that Kafka takes for the same.
        Unreachable: a topic was made, and the brokers do not show it.
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
        _widen_positions(plan, admin, there)
        _check_partitions(plan, there)
        _create(plan, admin, there)
        there |= _shown(admin, [name for name in wanted if name not in there])  # ours, or another process's just now
        _check_partitions(plan, there)
        return there
    finally:
        admin.close()


def _create(plan: Plan, admin: Admin, there: Mapping[str, TopicInfo]) -> None:
    """What is missing: first what is known by itself, then what is as wide as a foreign topic."""
    missing = [spec for spec in plan.topics if spec.name not in there]
    admin.create([spec for spec in missing if spec.partitions != AS_FOUND])
    by_topic = {
        name: stage for stage in plan.stages for name in (stage.retry_topic, stage.journal_topic, stage.changelog_topic)
    }
    waiting = [spec for spec in missing if spec.partitions == AS_FOUND]
    if waiting:
        found = _shown(admin, {i.topic for spec in waiting for i in by_topic[spec.name].inputs})
        widths = {s.name: max(found[i.topic].partitions for i in by_topic[s.name].inputs) for s in waiting}
        admin.create([replace(spec, partitions=widths[spec.name]) for spec in waiting])


def _shown(admin: Admin, names: Collection[str]) -> dict[str, TopicInfo]:
    """All of ``names``, which exist: any broker may answer, also one that has not heard of a new topic yet."""
    deadline = time.monotonic() + HEARSAY
    found = admin.describe(sorted(names))
    while missing := sorted(set(names) - set(found)):
        if time.monotonic() > deadline:
            raise Unreachable(f"topic {missing[0]!r} was made {HEARSAY:.0f} s ago, and the brokers do not show it")
        time.sleep(0.1)
        found |= admin.describe(missing)
    return found


def _widen_positions(plan: Plan, admin: Admin, there: dict[str, TopicInfo]) -> None:
    """Room for the tasks of sources that came since: who takes a task looks for its position in the whole topic."""
    name = offsets_topic(plan.name)
    wanted = next((spec.partitions for spec in plan.topics if spec.name == name), 0)
    if name in there and there[name].partitions < wanted:
        admin.widen(name, wanted)
        there |= admin.describe([name])


def _check_partitions(plan: Plan, there: Mapping[str, TopicInfo]) -> None:
    for spec in plan.topics:
        found = there.get(spec.name)
        if found is not None and found.partitions < spec.partitions and spec.name not in plan.given:
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
