"""The compiled plan: what runs, and which topics it runs over. Immutable; workers never plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from sage.graph.topology import Step, Topology
from sage.ports import TopicSpec
from sage.spec.options import Options, Ordering

Execution = Literal["source", "sync", "async", "sink"]
Format = Literal["json", "bytes", "str"]


@dataclass(frozen=True, slots=True)
class StageInput:
    """A topic that a stage reads.

    ``merges`` is the upstream step's name where several inputs meet, so that ids stay distinct (decision 1).
    ``owned`` topics are SAGE's edges; others belong to somebody else (``from_topic``). ``max_hops``: this edge goes
    back to an earlier step; a record that came over it more often is dead.
    """

    topic: str
    partitions: int | None
    format: Format = "json"
    owned: bool = True
    upstream: str = ""
    merges: str | None = None
    max_hops: int | None = None


@dataclass(frozen=True, slots=True)
class StageOutput:
    """A topic that a stage writes.

    ``step`` is the step whose output it is; ``branch`` names a branch of it, ``None`` is its main output.
    """

    topic: str
    step: str
    branch: str | None = None
    format: Format = "json"
    owned: bool = True


@dataclass(frozen=True, slots=True)
class Stage:
    """One step, or a chain of fused ones; the unit that is scheduled.

    Attributes:
        name: the first step's name; group and dead letters hang on it.
        steps: the chain, in order; a source or sink stage has exactly one. Empty for a bare copy from
            topic to topic.
        execution: ``source`` reads a Source; ``sync`` runs the chain on batches in the consumer's thread;
            ``async`` runs one coroutine (or thread, or micro-batch) per record in key lanes; ``sink`` writes.
        group: the consumer group; empty for a source.
        options: the first step's options over the topology's defaults over SAGE's: every field that has a
            default is set.
        ordering, concurrency: of the lanes.
        retry_topic: where records wait for another try, and where replayed dead letters go; as many partitions as
            the widest input. Empty for a source.
        journal_topic: results of external calls; empty where the step makes none.
        changelog_topic: the step's keyed state; empty where it has none.
        reasons: why it was cut, fused, parallelised: for ``explain``.
    """

    name: str
    steps: tuple[Step, ...]
    execution: Execution
    inputs: tuple[StageInput, ...]
    outputs: tuple[StageOutput, ...]
    group: str
    options: Options
    ordering: Ordering = "key"
    concurrency: int = 1
    retry_topic: str = ""
    journal_topic: str = ""
    changelog_topic: str = ""
    reasons: tuple[str, ...] = ()

    @property
    def converts(self) -> bool:
        """Whether a copy without steps reads values in another form than it writes them: text beside JSON."""
        forms = {output.format for output in self.outputs}
        return not self.steps and any({i.format} != forms for i in self.inputs if i.format != "bytes")

    def label(self) -> str:
        """The chain for people: ``clean + shout``."""
        return " + ".join(step.name for step in self.steps) or self.name


@dataclass(frozen=True)
class Plan:
    """Everything that a worker needs to run a topology.

    ``stages`` are in topological order. ``topics`` are those that SAGE must make or check; ``external``
    are those that must exist (``from_topic``).
    """

    topology: Topology
    stages: tuple[Stage, ...]
    topics: tuple[TopicSpec, ...]
    external: tuple[str, ...] = ()
    source_tasks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The topology's name."""
        return self.topology.name

    @cached_property
    def by_name(self) -> Mapping[str, Stage]:
        """Stages by name."""
        return {stage.name: stage for stage in self.stages}

    @cached_property
    def given(self) -> frozenset[str]:
        """Topics that the topology writes with ``to`` and does not read: made as it asks where they are missing, and
        taken as they are where they exist, since their readers may rely on their partitions.
        """
        read = {each.topic for stage in self.stages for each in stage.inputs}
        written = {output.topic for stage in self.stages for output in stage.outputs if not output.owned}
        return frozenset(written - read)

    @property
    def dead_letter_topic(self) -> str:
        """Where this topology's dead letters go."""
        from sage.model.names import dead_letter_topic

        return dead_letter_topic(self.name)

    @cached_property
    def hash(self) -> str:
        """The same for plans that do the same, in every process; code is compared by its source."""
        from sage.plan.encoding import plan_hash

        return plan_hash(self)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values: no code, no secrets."""
        from sage.plan.encoding import plan_json

        return {**plan_json(self), "hash": self.hash}

    def upstream(self, stage: Stage) -> tuple[Stage, ...]:
        """The stages that write what ``stage`` reads."""
        topics = {i.topic for i in stage.inputs}
        return tuple(s for s in self.stages if topics & {o.topic for o in s.outputs})
