"""What every task of a stage is given."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sage.model.identity import extended, topic_root
from sage.plan.plan import Plan, Stage
from sage.ports import Clock, RawMessage, Tracer
from sage.runtime.binding import BoundStep
from sage.runtime.outputs import Target, Targets, record_id_of
from sage.runtime.recovery import Recovery
from sage.spec.options import RetryPolicy


@dataclass(slots=True)
class StageSetting:
    """A stage with its steps bound, its targets resolved, and the world it runs in.

    Attributes:
        topic_ids: UUIDs of the input topics, the roots of record ids.
        worker: this process's name, for dead letters.
        stopping: set when the actor must give up waiting.
    """

    plan: Plan
    stage: Stage
    steps: Sequence[BoundStep]
    topic_ids: Mapping[str, str]
    clock: Clock
    tracer: Tracer
    worker: str
    stopping: threading.Event = field(default_factory=threading.Event)
    random: random.Random = field(default_factory=random.Random)

    def targets(self) -> Targets:
        """Where the stage's outputs go."""
        topics: dict[tuple[str, str | None], tuple[Target, ...]] = {}
        for output in self.stage.outputs:
            place = (output.step, output.branch)
            topics[place] = (*topics.get(place, ()), Target(output.topic, output.format))
        return Targets(topics)

    def recovery(self, step: BoundStep) -> Recovery:
        """The step's rules for failed records."""
        return Recovery(
            self.plan.name,
            step.name,
            step.options.retry or RetryPolicy(),
            step.options.on_error or "dlq",
            step.counters,
            self.random,
        )

    def merges(self) -> dict[str, str]:
        """Input topic -> upstream step, where several inputs meet."""
        return {i.topic: i.merges for i in self.stage.inputs if i.merges is not None}


class Identity:
    """Gives each record its id: the one it carries, or one made of its first place in Kafka."""

    def __init__(self, topic_ids: Mapping[str, str], merges: Mapping[str, str]) -> None:
        self._topic_ids = topic_ids
        self._merges = merges

    def of(self, message: RawMessage) -> str:
        """The record's id at this stage."""
        topic = message.topic()
        record_id = record_id_of(message.headers())
        if record_id is None:
            record_id = topic_root(self._topic_ids[topic], message.partition(), message.offset())
        upstream = self._merges.get(topic)
        return record_id if upstream is None else extended(record_id, upstream, 0)
