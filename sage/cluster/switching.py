"""A change that can't be made at once: what is in the old version's edges is finished before the new one takes over.

=====  ====================================================  =======================================================
phase  what the pointer says                                 what is waited for
=====  ====================================================  =======================================================
1      ``candidate``, ``held``                               writers of the drained edges stand still, nothing of
                                                             them is under way
2      ``candidate``, ``held``, ``leaving``                  the stages that change have read everything, and left
3      the same                                              offsets, state and positions are moved, topics grow
4      ``version``, nothing held or leaving                  (nothing)
=====  ====================================================  =======================================================

Each phase is told from the pointer and from the brokers, and each step may be done again: whoever deploys the same plan
after this process died goes on where it was. Until phase 3 the change can be taken back (``withdraw``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sage.cluster import changes
from sage.cluster.cluster_view import ClusterView
from sage.cluster.deployment import Deployment
from sage.cluster.desired import Desired, Leaving
from sage.cluster.names import ControlTopics
from sage.cluster.offsets import backlog, inherit, pass_over
from sage.cluster.progress import POLL, stages_on, unseen
from sage.cluster.session import ControlSession
from sage.cluster.state_moves import StateMover
from sage.errors import ChangeRefused, DeadlineExceeded, TransientFailure, Unreachable
from sage.plan.handover import Handover, handover
from sage.plan.plan import Plan, Stage
from sage.ports import Admin, KafkaClients

logger = logging.getLogger("sage.cluster")

Say = Callable[[str], None]

_STILL: Final = frozenset({"held", "drained", "backing-off"})


@dataclass(frozen=True, slots=True)
class Switch:
    """From one version to another.

    Attributes:
        old, new: their plans.
        deployment: the new version.
        hand: what has to be drained and moved between them.
        back: groups and topics that an earlier version read, and the old one does not.
    """

    old: Plan
    new: Plan
    deployment: Deployment
    hand: Handover
    back: tuple[tuple[str, str], ...] = ()


class Switching:
    """Carries one switch out.

    Args:
        session: the right to write about the topology.
        view: the workers' word.
        switch: what is to be done.
        deadline: ``time.monotonic()`` until which draining may take.
        say: told what is being waited for.
    """

    def __init__(
        self,
        clients: KafkaClients,
        topics: ControlTopics,
        session: ControlSession,
        view: ClusterView,
        switch: Switch,
        *,
        deadline: float,
        say: Say = lambda _: None,
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._session = session
        self._view = view
        self._switch = switch
        self._deadline = deadline
        self._say = say
        self._said = ""
        self._name = session.name
        self._admin = clients.admin()

    def run(self, finish: Callable[[], Desired]) -> Desired:
        """All phases; ``finish`` writes the last pointer.

        Raises:
            DeadlineExceeded: it did not drain in time; the old version goes on as before.
            Conflict: somebody else took over.
        """
        try:
            if self._is_running():
                try:
                    self._drain()
                except (DeadlineExceeded, KeyboardInterrupt):
                    self._take_back()
                    raise
            # Topics and offsets fence nobody: who was away for long, and lost the right to write, has to hear it here.
            self._session.point(changes.move(self._session.pointer, self._switch.deployment.version))
            move(self._clients, self._topics, self._admin, self._switch)
            return finish()
        finally:
            self._admin.close()

    def _is_running(self) -> bool:
        pointer = self._session.pointer
        return pointer is not None and pointer.state == "running"

    def _take_back(self) -> None:
        pointer = self._session.pointer
        if pointer is not None:
            self._session.point(changes.withdraw(pointer))

    def _drain(self) -> None:
        if not self._was_begun():
            self._hold()
        while True:
            self._wait(self._not_still)
            self._leave()
            left: dict[str, int] = {}

            def not_left(found: dict[str, int] = left) -> str:
                waiting = self._not_left()
                found.clear()
                found.update({} if waiting else {stage: n for stage, n in self._backlog().items() if n})
                return waiting

            self._wait(not_left)
            if not left:
                return
            if not self._view.live or time.monotonic() > self._deadline:
                shown = ", ".join(f"{count} records for {stage}" for stage, count in left.items())
                who = "in time" if self._view.live else "(no worker is online; start one with `sage worker run`)"
                raise DeadlineExceeded(f"nobody finished {shown} {who}; the running version stays", where=self._name)
            # Something came after the readers had left: a writer had more in hand than it knew. Once more.
            logger.info("%s: records came late; their readers go on", self._name)
            self._hold()

    # ----------------------------------------------------------------------------------------- phase 1

    def _was_begun(self) -> bool:
        """Whether a deployer before us has brought it to phase 2 already."""
        pointer = self._session.pointer
        return (
            pointer is not None
            and pointer.candidate == self._switch.deployment.version
            and (pointer.held, pointer.leaving) == (self._switch.hand.held, self._leaving())
        )

    def _hold(self) -> None:
        pointer = self._session.pointer
        assert pointer is not None, "a topology that runs has one"
        wanted = changes.hold(pointer, self._switch.deployment.version, self._switch.hand.held, ())
        self._session.point(wanted, *self._new_deployment())

    def _new_deployment(self) -> tuple[Deployment, ...]:
        there = self._session.log.deployments
        deployment = self._switch.deployment
        return () if (deployment.name, deployment.version) in there else (deployment,)

    def _not_still(self) -> str:
        for worker, seen in self._view.live.items():
            for status in stages_on(seen.topologies, self._switch.old.name):
                if status.stage in self._switch.hand.held and status.state not in _STILL:
                    return f"{status.stage} to stand still on {worker}"
        return ""

    # ----------------------------------------------------------------------------------------- phase 2

    def _leaving(self) -> tuple[Leaving, ...]:
        pointer = self._session.pointer
        version = 0 if pointer is None else pointer.version
        return tuple(Leaving(version, stage, after) for stage, after in self._switch.hand.leaving.items())

    def _leave(self) -> None:
        pointer = self._session.pointer
        assert pointer is not None, "_hold wrote one"
        if pointer.leaving != self._leaving():
            self._session.point(
                changes.hold(pointer, self._switch.deployment.version, self._switch.hand.held, self._leaving())
            )

    def _not_left(self) -> str:
        for worker, seen in self._view.live.items():
            for status in stages_on(seen.topologies, self._switch.old.name):
                if status.stage in self._switch.hand.leaving and status.state != "drained":
                    left = self._backlog().get(status.stage, 0)
                    return f"{status.stage} to drain on {worker}: {left} to go"
        for name in self._switch.hand.leaving:
            group = self._switch.old.by_name[name].group
            if group and self._admin.members(group):
                return f"the members of group {group} to leave"
        return ""

    def _backlog(self) -> Mapping[str, int]:
        """Stage -> what it has left to read of what is SAGE's."""
        return backlogs(self._admin, self._switch.old, self._switch.hand)

    # ---------------------------------------------------------------------------------------- waiting

    def _wait(self, missing: Callable[[], str]) -> None:
        """Until every live worker has read the pointer and nothing is ``missing``."""
        position = self._session.log.position
        while True:
            try:
                waiting = unseen(self._view, position) or missing()
            except (Unreachable, TransientFailure) as error:  # brokers come back, and the drain goes on meanwhile
                waiting = f"an answer of the brokers ({error.message})"
            if not waiting:
                return
            if waiting != self._said:
                self._said = waiting
                self._say(f"waiting for {waiting}")
            if time.monotonic() > self._deadline:
                raise DeadlineExceeded(
                    f"still waiting for {waiting}; the running version goes on as before: try again with a longer "
                    "--timeout",
                    where=self._name,
                )
            self._view.poll(POLL)


def move(clients: KafkaClients, topics: ControlTopics, admin: Admin, switch: Switch) -> None:
    """Phase 3: nobody is at work on what is moved here. May be done again.

    Raises:
        Conflict: another deployer is at it; or a group has members.
        TransientFailure, Unreachable: the brokers.
    """
    hand = switch.hand
    inherit(clients, admin, hand.inherits)
    pass_over(clients, admin, switch.back)
    edges = {output.topic for stage in switch.new.stages for output in stage.outputs}
    _grow(admin, {topic: count for topic, count in hand.grows.items() if topic not in edges})
    with StateMover(clients, topics, switch.new.name) as mover:
        for old, new in hand.changelogs.items():
            mover.copy(old, new)
        mover.move_positions(switch.new, hand.sources)
        # From here on there is no way back: keys of new records go to other partitions.
        _grow(admin, {topic: count for topic, count in hand.grows.items() if topic in edges})
        for changelog in hand.rekeyed:
            mover.rekey(changelog)


def _grow(admin: Admin, wanted: Mapping[str, int]) -> None:
    for topic, partitions in wanted.items():
        admin.widen(topic, partitions)


def backlogs(admin: Admin, plan: Plan, hand: Handover) -> dict[str, int]:
    """What each leaving stage has left to read of its edges and its retry topic; foreign topics stay as they are."""
    return {name: _left(admin, plan.by_name[name]) for name in hand.leaving}


def _left(admin: Admin, stage: Stage) -> int:
    topics = [i.topic for i in stage.inputs if i.owned] + ([stage.retry_topic] if stage.retry_topic else [])
    return sum(backlog(admin, stage.group, topic) for topic in topics) if stage.group else 0


def refuse_half_moved(admin: Admin, running: Plan, unfinished: Plan) -> None:
    """Before a switch is taken back: raise where it has gone too far for that.

    Raises:
        ChangeRefused: an edge has grown, so that keys are on their way to partitions where their state is not yet.
    """
    if handover(running, running, widths(admin, running), unfinished).drains:
        raise ChangeRefused(
            "topics have grown already for the version that was being deployed; deploy that one again to finish it",
            where=running.name,
        )


def widths(admin: Admin, plan: Plan) -> dict[str, int]:
    """Partitions of the topics of a plan that exist, of those that it does not own too."""
    found = admin.describe([*(topic.name for topic in plan.topics), *plan.external])
    return {name: info.partitions for name, info in found.items()}
