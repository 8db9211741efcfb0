"""When a bounded run is over: all that the sources gave, and all it caused, is committed downstream.

The stages are walked in order. A stage is finished when those before it are and its group has committed the
end of everything they wrote. The truth is Kafka's, so it holds for runs shared by several processes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from sage.errors import TransientFailure, Unreachable
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan, Stage
from sage.ports import Admin
from sage.runtime.sources.positions import ExhaustionWatch

logger = logging.getLogger("sage.runtime")
T = TypeVar("T")

BROKER_PATIENCE = 60.0
"""Seconds that a broker may say "later" before the run gives up."""

RETRY_DELAY = 0.5

PATIENCE = 0.05
"""Seconds between two looks at committed offsets."""


class Hosted(Protocol):
    """What is asked of an actor of this process, from another thread than its own."""

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """What it has."""
        ...

    @property
    def is_at_rest(self) -> bool:
        """Whether it has partitions, all restored, with no timer overdue or under way."""
        ...

    @property
    def is_taking_over(self) -> bool:
        """Whether it is being given partitions just now."""
        ...


class Termination:
    """Watches one bounded run.

    Args:
        partitions: topic -> number of partitions, of every topic that a stage reads.
        wait: sleeps that many seconds, and raises where the run failed or its time is over.
        here: actors of this process by their stage. Those with keyed state fire the timers that are overdue before
            the run is over; of other processes' nothing is known.
    """

    def __init__(
        self, plan: Plan, admin: Admin, watch: ExhaustionWatch, partitions: Mapping[str, int],
        wait: Callable[[float], None], here: Mapping[str, Hosted] | None = None,
    ) -> None:  # fmt: skip
        self._here = here or {}
        self._plan = plan
        self._admin = admin
        self._watch = watch
        self._partitions = partitions
        self._wait = wait
        self.waiting_for = ""
        self._external_ends = self._asked(self._ends_of_external_topics)

    def walk(self) -> None:
        """Return when the run is over."""
        self.waiting_for = "sources to give all they have"
        while not self._watch.exhausted(PATIENCE):
            self._wait(0)
        for group in groups(self._plan):
            self._finish(group)
        self.waiting_for = ""

    def _finish(self, group: Sequence[Stage]) -> None:
        """Wait until these stages have committed all that was written for them; nothing more can come.

        Stages of a loop write for each other, so what they have to reach moves until nothing moves any more: two
        looks that show the same.
        """
        seen: object = None
        while True:
            look = [self._look(stage) for stage in group]
            behind = [name for name, lag, _ in look if lag]
            firing = [] if behind else [stage.name for stage in group if self._may_fire(stage)]
            if not behind and not firing and ((len(group) == 1 and not _returns(group[0])) or look == seen):
                return
            seen = look
            lags = ", ".join(f'step "{name}": {lag} records behind' for name, lag, _ in look if lag)
            timers = ", ".join(f'step "{name}": timers that are overdue' for name in firing)
            self.waiting_for = (
                lags or timers or f"the loop of {', '.join(stage.name for stage in group)} to come to rest"
            )
            self._wait(PATIENCE)

    def _may_fire(self, stage: Stage) -> bool:
        """Whether timers of a stage may be overdue here, asked after its offsets were seen to be committed."""
        actor = self._here.get(stage.name)
        if actor is None or not stage.changelog_topic or actor.is_at_rest:
            return False
        return actor.is_taking_over or bool(actor.assignment) or not self._is_shared_out(stage)

    def _is_shared_out(self, stage: Stage) -> bool:
        """Whether members of the group, others than the one here that has none, have all of a stage's inputs."""
        members = self._asked(lambda: self._admin.members(stage.group))
        held = {partition for member in members for partition in member.partitions}
        return all(
            TopicPartition(i.topic, number) in held for i in stage.inputs for number in range(self._partitions[i.topic])
        )

    def _look(self, stage: Stage) -> tuple[str, int, dict[TopicPartition, int]]:
        """(stage, how far behind, where its inputs end), retried records included."""
        partitions = self._inputs(stage)
        committed = self._asked(lambda: self._admin.committed(stage.group, partitions))
        starts = self._asked(lambda: self._admin.start_offsets(partitions))
        ends = self._asked(lambda: self._ends(partitions))
        lag = sum(max(0, ends[p] - max(committed[p] or 0, starts[p])) for p in partitions)
        return stage.name, lag, ends

    def _asked(self, question: Callable[[], T]) -> T:
        """An answer of the brokers; a coordinator that moves or loads is asked again, for a bounded time."""
        for _ in range(int(BROKER_PATIENCE / RETRY_DELAY)):
            try:
                return question()
            except (TransientFailure, Unreachable) as error:
                logger.info("%s: asking the brokers again: %s", self._plan.name, error)
                self._wait(RETRY_DELAY)
        return question()

    def _inputs(self, stage: Stage) -> list[TopicPartition]:
        topics = [*(i.topic for i in stage.inputs), *((stage.retry_topic,) if stage.retry_topic else ())]
        return [TopicPartition(topic, number) for topic in topics for number in range(self._partitions[topic])]

    def _ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where our own topics end, what is still in an open transaction included; foreign ones as the run began."""
        ours = [p for p in partitions if p not in self._external_ends]
        now = self._admin.end_offsets(ours, committed=False) if ours else {}
        return {p: self._external_ends[p] if p in self._external_ends else now[p] for p in partitions}

    def _ends_of_external_topics(self) -> dict[TopicPartition, int]:
        """Other programs may write to these without end: what is there now is what the run is for."""
        written = {o.topic for stage in self._plan.stages for o in stage.outputs}
        external = [
            TopicPartition(i.topic, number)
            for stage in self._plan.stages
            for i in stage.inputs
            if not i.owned and i.topic not in written
            for number in range(self._partitions[i.topic])
        ]
        return self._admin.end_offsets(external) if external else {}


def groups(plan: Plan) -> list[list[Stage]]:
    """The stages that read topics, those of one loop together, each group after what it reads.

    Tarjan's strongly connected components, over "writes what that one reads".
    """
    readers: dict[str, list[Stage]] = {}
    for stage in plan.stages:
        for given in stage.inputs:
            readers.setdefault(given.topic, []).append(stage)
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[Stage] = []
    found: list[list[Stage]] = []

    def visit(stage: Stage) -> None:
        order[stage.name] = low[stage.name] = len(order)
        stack.append(stage)
        for following in (reader for output in stage.outputs for reader in readers.get(output.topic, ())):
            if following.name not in order:
                visit(following)
                low[stage.name] = min(low[stage.name], low[following.name])
            elif following in stack:
                low[stage.name] = min(low[stage.name], order[following.name])
        if low[stage.name] == order[stage.name]:
            at = stack.index(stage)
            found.append(stack[at:])
            del stack[at:]

    for stage in plan.stages:
        if stage.name not in order:
            visit(stage)
    return [
        [s for s in group if s.execution != "source"] for group in reversed(found) if group[0].execution != "source"
    ]


def _returns(stage: Stage) -> bool:
    """Whether a stage reads what it writes itself."""
    return bool({i.topic for i in stage.inputs} & {output.topic for output in stage.outputs})
