"""The two things that a unit can be in a process, an actor or the host of the sources, behind one face."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from sage.cluster.worker.reconcile import Mode
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan, Stage
from sage.runtime.actors.actor import Actor
from sage.runtime.sources.source_host import SourceHost
from sage.runtime.steps.binding import BoundStep


class Member(Protocol):
    """A member of a group, opened and then run on a thread of its own until it is stopped or fails."""

    @property
    def failure(self) -> BaseException | None:
        """Why it ended, if by itself."""
        ...

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """What it has."""
        ...

    @property
    def is_at_rest(self) -> bool:
        """Whether it does nothing now of what its mode forbids."""
        ...

    @property
    def has_joined(self) -> bool:
        """Whether its group has given it something."""
        ...

    @property
    def restored(self) -> float | None:
        """How much of its state is there, 0 to 1, while it is being restored; else ``None``."""
        ...

    @property
    def transactional_ids(self) -> tuple[str, ...]:
        """Of its producers."""
        ...

    @property
    def committed(self) -> Mapping[TopicPartition, int]:
        """Next offsets of what it has, as committed by it."""
        ...

    def steps_of(self, stage: str) -> Sequence[BoundStep]:
        """The steps of one of its stages."""
        ...

    def open(self) -> None:
        """Open the steps and join the group. Raises what they raise; ``run`` must follow all the same to release."""
        ...

    def run(self) -> None:
        """Work until stopped or failed; everything is released when it returns."""
        ...

    def stop(self, timeout: float) -> None:
        """Have ``run`` drain within ``timeout`` seconds and return. From any thread."""
        ...

    def change(self, mode: Mode) -> None:
        """Run in this mode. From any thread."""
        ...


class ActorMember:
    """A stage that reads topics."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        stage = actor.setting.stage
        self._foreign = frozenset(i.topic for i in stage.inputs if not i.owned)

    @property
    def failure(self) -> BaseException | None:
        """As the protocol."""
        return self.actor.failure

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """Its inputs' partitions; those of the retry topic come along with them."""
        retry = self.actor.setting.stage.retry_topic
        return frozenset(place for place in self.actor.assignment if place.topic != retry)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is under way."""
        return self.actor.task.idle()

    @property
    def has_joined(self) -> bool:
        """As the protocol."""
        return self.actor.joined.is_set()

    @property
    def restored(self) -> float | None:
        """As the protocol."""
        return self.actor.task.restored

    @property
    def transactional_ids(self) -> tuple[str, ...]:
        """As the protocol."""
        return (self.actor.transactional_id,) if self.actor.transactional_id else ()

    @property
    def committed(self) -> Mapping[TopicPartition, int]:
        """As the protocol."""
        return self.actor.committed

    def steps_of(self, stage: str) -> Sequence[BoundStep]:
        """As the protocol."""
        return self.actor.setting.steps

    def open(self) -> None:
        """As the protocol."""
        self.actor.open()

    def run(self) -> None:
        """As the protocol."""
        self.actor.run(lambda _: None)

    def stop(self, timeout: float) -> None:
        """As the protocol."""
        self.actor.stop(timeout)

    def change(self, mode: Mode) -> None:
        """As the protocol."""
        if mode in {"paused", "held"}:
            self.actor.rest(self.actor.topics)
        else:
            self.actor.rest(self._foreign if mode in {"drain", "finish"} else frozenset())


class SourcesMember:
    """All sources of a topology."""

    def __init__(self, host: SourceHost) -> None:
        self.host = host
        self._steps = {step.name: [step] for step in host.steps}

    @property
    def failure(self) -> BaseException | None:
        """As the protocol."""
        return self.host.failure

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """Its tasks' partitions of the positions topic."""
        return self.host.assignment

    @property
    def is_at_rest(self) -> bool:
        """As the protocol."""
        return self.host.is_at_rest

    @property
    def has_joined(self) -> bool:
        """As the protocol."""
        return bool(self.host.assignment)

    @property
    def restored(self) -> float | None:
        """Sources keep no state."""
        return None

    @property
    def transactional_ids(self) -> tuple[str, ...]:
        """None of their own: they are named after the tasks, and each owner of one fences the last."""
        return ()

    @property
    def committed(self) -> Mapping[TopicPartition, int]:
        """Nothing: positions are records."""
        return {}

    def steps_of(self, stage: str) -> Sequence[BoundStep]:
        """As the protocol."""
        return self._steps[stage]

    def open(self) -> None:
        """As the protocol."""
        self.host.open()
        self.host.order(bounded=False)

    def run(self) -> None:
        """As the protocol."""
        self.host.run(lambda _: None)

    def stop(self, timeout: float) -> None:
        """As the protocol; positions are written in a few seconds, whatever ``timeout`` is."""
        self.host.stop()

    def change(self, mode: Mode) -> None:
        """As the protocol."""
        self.host.rest(mode != "run")


def left_to_read(plan: Plan, stage: Stage) -> frozenset[tuple[str, str]]:
    """(group, topic) pairs that have to be read to their ends before ``stage`` is drained.

    Its own topics but foreign ones; where it is in a loop, those of all stages in it: what they have can come back.
    """
    ahead = _all_upstream(plan, stage)
    loop = [stage, *(each for each in plan.stages if each in ahead and stage in _all_upstream(plan, each))]
    pairs = {(each.group, i.topic) for each in loop for i in each.inputs if i.owned}
    return frozenset(pairs | {(each.group, each.retry_topic) for each in loop if each.retry_topic})


def _all_upstream(plan: Plan, stage: Stage) -> list[Stage]:
    found: list[Stage] = []
    ahead = [stage]
    while ahead:
        new = [each for each in plan.upstream(ahead.pop()) if each not in found]
        found += new
        ahead += new
    return found


MakeMember = Callable[[], Member]
