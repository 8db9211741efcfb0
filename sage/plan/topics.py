"""The topics that a plan needs, and how they are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sage.graph.topology import TopicSettings, Topology
from sage.model.names import dead_letter_topic, offsets_topic
from sage.plan.plan import Plan, Stage
from sage.ports import TopicSpec

KEEP = {"retention.ms": "-1"}
"""Edges and dead letters are never dropped by the broker: what a group hasn't read yet must not go."""

COMPACT = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
"""State is what a key's last record says."""

POSITIONS = {
    "cleanup.policy": "compact",
    "message.timestamp.type": "LogAppendTime",
    "segment.ms": str(10 * 60_000),
    "segment.bytes": str(4 * 1024 * 1024),
}
"""A source task's position is what its last record says. Tasks move between partitions, and which of two was written
last must not be for their writers' clocks to say. Segments are closed soon, as each owner reads them from the start and
an exactly-once source writes ten times a second. Only said of a topic that is made: one that is there stays as it is.
"""

AS_FOUND = 0
"""Partitions that are known only when the foreign topic that a stage reads is looked at."""


def topic_specs(
    topology: Topology,
    stages: Iterable[Stage],
    source_tasks: Mapping[str, tuple[str, ...]],
    partitions: Mapping[str, int],
) -> tuple[TopicSpec, ...]:
    """Every topic that is made when it is missing; ``partitions`` holds those of the topics written."""
    settings = topology.topics
    specs: dict[str, TopicSpec] = {}
    for stage in stages:
        for output in stage.outputs:
            kept: Mapping[str, str] = KEEP if output.owned else {}
            specs.setdefault(output.topic, _spec(output.topic, partitions[output.topic], settings, kept))
        for name, config in _own_topics(stage):
            specs[name] = _spec(name, _widest(stage), settings, config)
    tasks = sum(len(names) for names in source_tasks.values())
    if tasks:
        name = offsets_topic(topology.name)
        specs[name] = _spec(name, tasks, settings, POSITIONS)
    dead = dead_letter_topic(topology.name)
    specs[dead] = _spec(dead, 1, settings, KEEP)
    return tuple(specs.values())


def _own_topics(stage: Stage) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Topics that only the stage itself reads."""
    if stage.retry_topic:
        yield stage.retry_topic, KEEP
    if stage.journal_topic:
        yield stage.journal_topic, KEEP
    if stage.changelog_topic:
        yield stage.changelog_topic, COMPACT


def _widest(stage: Stage) -> int:
    """Partitions of a stage's own topics: those of its widest input; ``AS_FOUND`` where a foreign topic decides."""
    known = [i.partitions for i in stage.inputs]
    return AS_FOUND if None in known else max((count for count in known if count is not None), default=1)


def offsets_partitions(plan: Plan) -> dict[tuple[str, str], int]:
    """The partition of the offsets topic in which each source task, as (step, task), keeps its position."""
    tasks = [(step, task) for step, names in plan.source_tasks.items() for task in names]
    return {task: partition for partition, task in enumerate(tasks)}


def _spec(name: str, partitions: int, settings: TopicSettings, config: Mapping[str, str]) -> TopicSpec:
    return TopicSpec(name, partitions, settings.replication_factor, dict(config))
