"""When a bounded run is over: all that the sources gave, and all it caused, is committed downstream.

The stages are walked in order. A stage is finished when those before it are and its group has committed the
end of everything they wrote. The truth is Kafka's, so it holds for runs shared by several processes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sage.errors import TransientFailure, Unreachable
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan, Stage
from sage.ports import Admin
from sage.runtime.positions import ExhaustionWatch

logger = logging.getLogger("sage.runtime")
T = TypeVar("T")

BROKER_PATIENCE = 60.0
"""Seconds that a broker may say "later" before the run gives up."""

RETRY_DELAY = 0.5

PATIENCE = 0.05
"""Seconds between two looks at committed offsets."""


class Termination:
    """Watches one bounded run.

    Args:
        partitions: topic -> number of partitions, of every topic that a stage reads.
        wait: sleeps that many seconds, and raises where the run failed or its time is over.
    """

    def __init__(
        self, plan: Plan, admin: Admin, watch: ExhaustionWatch, partitions: Mapping[str, int],
        wait: Callable[[float], None],
    ) -> None:  # fmt: skip
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
        for stage in self._plan.stages:
            if stage.execution != "source":
                self._finish(stage)
        self.waiting_for = ""

    def _finish(self, stage: Stage) -> None:
        """Wait until the stage has committed all that was written for it; nothing more can come."""
        partitions = self._inputs(stage)
        starts = self._asked(lambda: self._admin.start_offsets(partitions))
        ends = self._asked(lambda: self._ends(stage, partitions))
        while True:
            committed = self._asked(lambda: self._admin.committed(stage.group, partitions))
            behind = [p for p in partitions if ends[p] > starts[p] and (committed[p] or 0) < ends[p]]
            if not behind:
                return
            lag = sum(ends[p] - max(committed[p] or 0, starts[p]) for p in behind)
            self.waiting_for = f'step "{stage.name}": {lag} records behind in {len(behind)} partitions'
            self._wait(PATIENCE)

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
        return [TopicPartition(i.topic, number) for i in stage.inputs for number in range(self._partitions[i.topic])]

    def _ends(self, stage: Stage, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        now = self._admin.end_offsets([p for p in partitions if p not in self._external_ends])
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
