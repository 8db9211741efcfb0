"""What every task of a stage is given."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sage.model.identity import extended, topic_root
from sage.plan.plan import Plan, Stage
from sage.ports import Clock, RawMessage, Tracer
from sage.runtime.retries.dead_letters import DeadLetter, dead_letter
from sage.runtime.retries.recovery import Recovery
from sage.runtime.state.timer_message import TimerMessage
from sage.runtime.steps.binding import BoundStep
from sage.runtime.steps.outputs import Target, Targets, record_id_of
from sage.spec.options import RetryPolicy

ERROR_BRANCH = "error"
"""The branch that takes a step's failed records."""


@dataclass(slots=True)
class StageSetting:
    """A stage with its steps bound, its targets resolved, and the world it runs in.

    Attributes:
        topic_ids: UUIDs of the input topics, the roots of record ids.
        worker: this process's name, for dead letters.
        partitions: how many the stage's topics have.
        stopping: set when the actor must give up waiting.
    """

    plan: Plan
    stage: Stage
    steps: Sequence[BoundStep]
    topic_ids: Mapping[str, str]
    clock: Clock
    tracer: Tracer
    worker: str
    partitions: Mapping[str, int] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)
    random: random.Random = field(default_factory=random.Random)

    @property
    def longest_backoff(self) -> float:
        """Seconds that a record of this stage waits for its next try at most."""
        return max((step.options.retry or RetryPolicy()).max_backoff for step in self.steps)

    def targets(self) -> Targets:
        """Where the stage's outputs go."""
        topics: dict[tuple[str, str | None], tuple[Target, ...]] = {}
        for output in self.stage.outputs:
            place = (output.step, output.branch)
            topics[place] = (*topics.get(place, ()), Target(output.topic, output.format))
        return Targets(topics)

    def letter(self, message: RawMessage, error: BaseException, step: BoundStep, attempts: int) -> DeadLetter:
        """What is left of a record that failed in ``step`` for good, for its ``error`` branch or the dead letters."""
        branch = self.error_branch(step)
        letter = dead_letter(
            message, error, topology=self.plan.name, stage=self.stage.name, step=step.name, code=step.code,
            worker=self.worker, attempts=attempts, topic=branch or self.plan.dead_letter_topic,
            record_id=Identity(self.topic_ids, self.merges()).of(message) if branch else None,
            timer=message.timer if isinstance(message, TimerMessage) else None,
        )  # fmt: skip
        return letter.as_json_text() if branch and self._is_text_beside_json(message.topic(), branch) else letter

    def _is_text_beside_json(self, came_from: str, branch: str) -> bool:
        """Whether a branch holds JSON, and this input is one of several and plain text."""
        written = next(o.format for o in self.stage.outputs if o.topic == branch)
        return written == "json" and any(i.topic == came_from and i.format == "str" for i in self.stage.inputs)

    def error_branch(self, step: BoundStep) -> str | None:
        """The topic that takes the step's failed records, where somebody reads them."""
        return next((o.topic for o in self.stage.outputs if (o.step, o.branch) == (step.name, ERROR_BRANCH)), None)

    def recovery(self, step: BoundStep) -> Recovery:
        """The step's rules for failed records."""
        return Recovery(
            self.plan.name,
            step.name,
            step.options.retry or RetryPolicy(),
            step.options.on_error or "dlq",
            step.counters,
            self.random,
            has_branch=self.error_branch(step) is not None,
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


def widest_input(stage: Stage, partitions: Mapping[str, int]) -> str:
    """The input whose partitions the retry topic's go with."""
    return max((i.topic for i in stage.inputs), key=lambda topic: partitions.get(topic, 1))
