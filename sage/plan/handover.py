"""What has to happen between two plans of one topology before the second can take over. Pure.

Mostly nothing: a stage that reads the same topics is started anew with its new configuration, one worker after the
other. But a stage that is removed, renamed, or is to read something else has to finish what it was given, and whoever
writes that has to stand still meanwhile; else records would be left behind, or overtake each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from sage.plan.diff import is_ordered, moves_of, renamed_topics
from sage.plan.plan import Plan, Stage
from sage.plan.topics import AS_FOUND


@dataclass(frozen=True, slots=True)
class Inheritance:
    """A group that goes on where others stood: where the last of them did."""

    topic: str
    old_groups: tuple[str, ...]
    new_group: str


@dataclass(frozen=True, slots=True)
class Handover:
    """What has to be drained and moved.

    Attributes:
        leaving: stages of the old plan that finish their input and leave, each with those that must have left before.
        held: stages of the old plan that stand still meanwhile, because they write what is drained.
        grows: topic of the new plan -> partitions that it gets; its readers' own topics among them.
        inherits: groups that begin where others stood.
        changelogs: old -> new name of changelogs whose content goes along.
        rekeyed: changelogs (by their new name) whose keys move to other partitions.
        sources: old -> new name of source steps whose positions go along.
    """

    leaving: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    held: tuple[str, ...] = ()
    grows: Mapping[str, int] = field(default_factory=dict)
    inherits: tuple[Inheritance, ...] = ()
    changelogs: Mapping[str, str] = field(default_factory=dict)
    rekeyed: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def drains(self) -> bool:
        """Whether something has to drain, so that the new plan cannot take over at once."""
        return bool(self.leaving)

    def without(self, stages: Collection[str]) -> Handover:
        """The same where nobody waits for these stages of the old plan."""
        return replace(
            self,
            leaving={
                stage: tuple(name for name in after if name not in stages)
                for stage, after in self.leaving.items()
                if stage not in stages
            },
            held=tuple(stage for stage in self.held if stage not in stages),
        )


def handover(old: Plan, new: Plan, found: Mapping[str, int], unfinished: Plan | None = None) -> Handover:
    """What has to happen so that ``new`` can take over from ``old``.

    Args:
        old, new: plans of one topology.
        found: partitions of the topics that exist, those that it does not own included: a topic never gets fewer than
            it has, whatever a plan asks for.
        unfinished: a plan that was about to take over from ``old`` when its deployer died.
    """
    return _Handover(old, new, found, unfinished).result()


class _Handover:
    """One computation."""

    def __init__(self, old: Plan, new: Plan, found: Mapping[str, int], unfinished: Plan | None) -> None:
        self.old = old
        self.new = new
        self.found = found
        self.moves = moves_of(old, new)
        self.topics = renamed_topics(old, self.moves)
        self.edges = dict(self._growing_edges())
        ordered = {i.topic for stage in new.stages if is_ordered(stage) for i in stage.inputs}
        self.moved_keys = ordered & (self.edges.keys() | set(self._half_grown(unfinished)))

    def result(self) -> Handover:
        leaving = [stage for stage in self.old.stages if self._leaves(stage)]
        names = {stage.name for stage in leaving}
        drained = {i.topic for stage in leaving for i in stage.inputs}
        held = [
            stage.name
            for stage in self.old.stages
            if stage.name not in names and any(output.topic in drained for output in stage.outputs)
        ]
        return Handover(
            leaving={stage.name: self._after(stage, names) for stage in leaving},
            held=tuple(held),
            grows={**dict(self._growing_with_edges()), **self.edges},
            inherits=tuple(self._inherits()),
            changelogs=dict(self._changelogs()),
            rekeyed=tuple(self._rekeyed()),
            sources={
                before: after
                for before, after in self.moves.items()
                if before in self.old.source_tasks and after in self.new.source_tasks
            },
        )

    # ------------------------------------------------------------------------------------ who leaves

    def _successor(self, stage: Stage) -> Stage | None:
        return self.new.by_name.get(self.moves.get(stage.name, stage.name))

    def _leaves(self, stage: Stage) -> bool:
        new = self._successor(stage)
        if new is None or new.name != stage.name or (stage.execution == "source") != (new.execution == "source"):
            return True
        if {i.topic for i in stage.inputs} != {i.topic for i in new.inputs}:
            return True
        return any(i.topic in self.moved_keys for i in new.inputs)

    def _after(self, stage: Stage, leaving: set[str]) -> tuple[str, ...]:
        """Those that leave too and write what it reads; what comes back over a loop doesn't count."""
        topics = {i.topic for i in stage.inputs if i.max_hops is None}
        return tuple(
            other.name
            for other in self.old.stages
            if other.name in leaving - {stage.name} and any(output.topic in topics for output in other.outputs)
        )

    # ------------------------------------------------------------------------------------- what grows

    def _growing_edges(self) -> Iterator[tuple[str, int]]:
        """Edges that get more partitions."""
        private = set(self._private())
        for topic in self.new.topics:
            if topic.name in private or topic.partitions == AS_FOUND or not self._is_ours(topic.name):
                continue
            if topic.name in self.found and self.found[topic.name] < topic.partitions:
                yield topic.name, topic.partitions

    def _growing_with_edges(self) -> Iterator[tuple[str, int]]:
        """A stage's own topics, which are as wide as what it reads is, or will be; new ones among them."""
        asked = {topic.name: topic.partitions for topic in self.new.topics}
        for name, stage in self._private().items():
            width = max((max(self.found.get(i.topic, 0), asked.get(i.topic, 0)) for i in stage.inputs), default=0)
            has = self.found.get(name, asked[name])
            if has != AS_FOUND and has < width:
                yield name, width

    def _private(self) -> dict[str, Stage]:
        """Topics that only one stage reads and writes: retries, journals, changelogs."""
        names = ((s, (s.retry_topic, s.journal_topic, s.changelog_topic)) for s in self.new.stages)
        return {name: stage for stage, topics in names for name in topics if name}

    def _is_ours(self, topic: str) -> bool:
        """Whether SAGE made it for itself: topics of ``to`` and ``from_topic`` are not ours to change."""
        foreign = {output.topic for stage in self.new.stages for output in stage.outputs if not output.owned}
        return topic not in foreign and topic not in self.new.external

    def _half_grown(self, unfinished: Plan | None) -> Iterator[str]:
        """Edges that a deployer which died has widened: their keys may not have been moved."""
        if unfinished is None:
            return
        was = {topic.name: topic.partitions for topic in self.old.topics}
        for topic in unfinished.topics:
            if 0 < was.get(topic.name, 0) < topic.partitions <= self.found.get(topic.name, 0):
                yield topic.name

    def _rekeyed(self) -> Iterator[str]:
        for stage in self.new.stages:
            if stage.changelog_topic and any(i.topic in self.moved_keys for i in stage.inputs):
                yield stage.changelog_topic

    # -------------------------------------------------------------------------------------- what goes along

    def _changelogs(self) -> Iterator[tuple[str, str]]:
        for before, after in self.topics.items():
            old = any(stage.changelog_topic == before for stage in self.old.stages)
            if old and any(stage.changelog_topic == after for stage in self.new.stages):
                yield before, after

    def _inherits(self) -> Iterator[Inheritance]:
        """Who begins to read a topic that somebody stops reading, goes on where that one stood."""
        old = {(i.topic, stage.group) for stage in self.old.stages for i in stage.inputs}
        new = {(i.topic, stage.group) for stage in self.new.stages for i in stage.inputs}
        gone: dict[str, list[str]] = {}
        for topic, group in sorted(old - new):
            gone.setdefault(topic, []).append(group)
        for topic, group in sorted(new - old):
            if topic in gone:
                yield Inheritance(topic, self._predecessors(group, gone[topic]), group)

    def _predecessors(self, group: str, gone: list[str]) -> tuple[str, ...]:
        """The group that was renamed to this one, else all that stop reading."""
        renamed = {new.group: stage.group for stage in self.old.stages if (new := self._successor(stage)) is not None}
        return (renamed[group],) if renamed.get(group) in gone else tuple(gone)
