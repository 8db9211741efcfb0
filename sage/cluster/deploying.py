"""One deploy, from the plan to the pointer: compared, refused or allowed, drained where it must be, written."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from sage.cluster import changes
from sage.cluster.cluster_view import ClusterView
from sage.cluster.code import code_of, step_digest
from sage.cluster.control_log import ControlLog
from sage.cluster.deployment import Deployment
from sage.cluster.desired import Desired
from sage.cluster.names import ControlTopics
from sage.cluster.offsets import own_pairs, put_back
from sage.cluster.session import ControlSession, Record
from sage.cluster.switching import Say, Switch, Switching, backlogs, move, widths
from sage.errors import ChangeRefused, SageError
from sage.plan.diff import PlanDiff, diff_plans, moves_of
from sage.plan.handover import Handover, handover
from sage.plan.plan import Plan
from sage.ports import Admin, KafkaClients
from sage.runtime.runs.topics import prepare_topics

VERSIONS_KEPT: Final = 20
"""Versions of a topology that stay in the control topic, to roll back to."""

DRAIN_TIMEOUT: Final = 300.0
"""Seconds that edges may take to drain before a new version, unless said otherwise."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deploy came to.

    Attributes:
        deployment: the version that runs, or shall.
        desired: the pointer as written.
        diff: what it changed.
        unchanged: the same plan and the same code ran already: nothing was written.
    """

    deployment: Deployment
    desired: Desired
    diff: PlanDiff
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall run: a new plan, or (``stored``) one that was deployed before."""

    plan: Plan
    code: Mapping[str, str]
    caller: tuple[str, ...] = ()
    message: str = ""
    stored: Deployment | None = None

    @classmethod
    def of(cls, plan: Plan, caller: Collection[str] = (), message: str = "") -> Wanted:
        """A plan as compiled here, with its code."""
        return cls(plan, code_of(plan), tuple(caller), message)

    @classmethod
    def again(cls, log: ControlLog, running: int, deployment: Deployment) -> Wanted:
        """A stored version, to run again after version ``running``."""
        plan = deployment.decoded()
        moved = moves_between(log, deployment.name, running, deployment.version)
        plan = replace(plan, topology=replace(plan.topology, moved=moved))
        message = f"rollback to version {deployment.version}"
        return cls(plan, deployment.code, deployment.caller, message, deployment)


def moves_between(log: ControlLog, name: str, start: int, end: int) -> dict[str, str]:
    """Names of steps in version ``start`` -> those in version ``end``, as far as they were renamed in between."""
    back = end < start
    between = [v for v in log.versions(name) if min(start, end) < v <= max(start, end)]
    names = {step: step for step in log.deployment(name, start).decoded().topology.by_name}
    for version in sorted(between, reverse=back):
        moved: Mapping[str, str] = log.deployment(name, version).plan["moved"]
        step = {after: before for before, after in moved.items()} if back else dict(moved)
        names = {first: step.get(now, now) for first, now in names.items()}
    return {first: now for first, now in names.items() if first != now}


def compared(log: ControlLog, wanted: Wanted) -> PlanDiff:
    """What would change of what is deployed."""
    running = running_version(log, wanted.plan.name)
    if running is None:
        return diff_plans(None, wanted.plan)
    old = running.decoded()
    before = {after: name for name, after in moves_of(old, wanted.plan).items()}
    changed = {
        step.name
        for step in wanted.plan.topology.steps
        if step_digest(running.code, before.get(step.name, step.name)) != step_digest(wanted.code, step.name)
    }
    return diff_plans(old, wanted.plan, code_changed=frozenset(changed & old_names(old, before, changed)))


def old_names(old: Plan, before: Mapping[str, str], names: Collection[str]) -> set[str]:
    """Those of ``names`` that the old plan has, under whatever name."""
    return {name for name in names if before.get(name, name) in old.topology.by_name}


def running_version(log: ControlLog, name: str) -> Deployment | None:
    """The version that the pointer names, also of a stopped or deleted topology; ``None`` where there is none."""
    pointer = log.pointers.get(name)
    if pointer is None or pointer.version == 0:
        return None
    return log.deployment(name, pointer.version)


class Deploying:
    """One deploy under one session.

    Args:
        session: the right to write about the topology.
        wanted: what shall run.
        who, now_ms: for the record.
        allow: the flags that were given, such as ``--allow-orphans``.
        timeout: seconds that draining may take.
        say: told what is being waited for.
    """

    def __init__(
        self,
        clients: KafkaClients,
        topics: ControlTopics,
        session: ControlSession,
        wanted: Wanted,
        *,
        who: str,
        now_ms: Callable[[], int],
        allow: Collection[str] = (),
        timeout: float = DRAIN_TIMEOUT,
        say: Say = lambda _: None,
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._session = session
        self._wanted = wanted
        self._plan = wanted.plan
        self._who = who
        self._now_ms = now_ms
        self._allow = frozenset(allow)
        self._deadline = time.monotonic() + timeout
        self._say = say

    def run(self) -> Deployed:
        """Do it.

        Raises:
            ChangeRefused: it needs flags that were not given, or something stands in its way.
            Conflict: somebody else was first.
            DeadlineExceeded: the edges did not drain in time; the running version goes on.
            NotFound, InvalidTopology: a topic is missing, or has too few partitions.
        """
        diff = compared(self._session.log, self._wanted)
        running = running_version(self._session.log, self._plan.name)
        if running is not None and self._is_running(running):
            assert self._session.pointer is not None, "there is a version"
            return Deployed(running, self._session.pointer, diff, unchanged=True)
        refuse(diff, self._allow)
        admin = self._clients.admin()
        try:
            return self._deploy(admin, running, diff)
        finally:
            admin.close()

    def _is_running(self, running: Deployment) -> bool:
        """Whether exactly this runs already."""
        pointer = self._session.pointer
        if pointer is None or pointer.state not in {"running", "paused"} or pointer.held or pointer.leaving:
            return False
        if self._wanted.stored is not None:
            return running.version == self._wanted.stored.version
        wanted = (self._plan.hash, dict(self._wanted.code), self._wanted.caller)
        return (running.plan["hash"], dict(running.code), running.caller) == wanted

    def _deploy(self, admin: Admin, running: Deployment | None, diff: PlanDiff) -> Deployed:
        deployment = self._wanted.stored or self.unfinished() or self._made()
        hand, found = Handover(), dict[str, int]()
        old = None
        if running is not None:
            old = running.decoded()
            found = widths(admin, self._plan)
            hand = handover(old, self._plan, found, self._half_done())
            hand = hand.without(running.caller)  # whoever ran those has ended, or ends them itself
        # What grows does so when its readers have left; all else has to be there, and as it shall be, by now.
        steady = tuple(t for t in self._plan.topics if not (t.name in hand.grows and t.name in found))
        prepare_topics(replace(self._plan, topics=steady), self._clients)
        if (pointer := self._session.pointer) is not None and pointer.offsets:
            put_back(self._clients, admin, pointer.offsets)  # before anybody asks what is left, or inherits
        back = () if old is None else self._coming_back(old, deployment)
        if old is None or (hand == Handover() and not back):
            return Deployed(deployment, self._point(deployment), diff)
        switch = Switch(old, self._plan, deployment, hand, back)
        if not hand.drains:
            move(self._clients, self._topics, admin, switch)
            return Deployed(deployment, self._point(deployment), diff)
        self._check_can_drain(admin, switch)
        view = ClusterView(self._clients, self._topics)
        try:
            view.read_fresh()
            switching = Switching(
                self._clients, self._topics, self._session, view, switch, deadline=self._deadline, say=self._say
            )
            return Deployed(deployment, switching.run(lambda: self._point(deployment)), diff)
        finally:
            view.close()

    def _coming_back(self, old: Plan, deployment: Deployment) -> tuple[tuple[str, str], ...]:
        """Groups, each with a topic of ours, that read it in an earlier version and don't in the one that runs.

        What the one that runs goes on writing has come since they left, and is theirs to read.
        """
        written = {output.topic for stage in old.stages for output in stage.outputs}
        log, pointer = self._session.log, self._session.pointer
        unknown = {None if pointer is None else pointer.candidate}  # which never ran
        unknown |= {deployment.version} if self._wanted.stored is None else set()
        earlier = [
            log.deployment(self._plan.name, each) for each in log.versions(self._plan.name) if each not in unknown
        ]
        read = {pair for each in earlier for pair in own_pairs(each.decoded())}
        back = (own_pairs(self._plan) - own_pairs(old)) & read
        return tuple(sorted((group, topic) for group, topic in back if topic not in written))

    def _check_can_drain(self, admin: Admin, switch: Switch) -> None:
        """Raise where something is on its way and nobody will finish it. Raises ChangeRefused."""
        pointer = self._session.pointer
        state = "deleted" if pointer is None else pointer.state
        if state == "running":
            return
        left = {stage: count for stage, count in backlogs(admin, switch.old, switch.hand).items() if count}
        if left:
            shown = ", ".join(f"{count} records for {stage}" for stage, count in left.items())
            name = self._plan.name
            what = (
                f"`sage topology delete {name} --purge` first, or deploy what was deleted and drain it"
                if state == "deleted"
                else f"`sage topology resume {name}`, and deploy then"
            )
            raise ChangeRefused(
                f"it is {state} with {shown} on their way, which have to be finished: {what}", where=name
            )

    # --------------------------------------------------------------------------------------- records

    @property
    def has_begun(self) -> bool:
        """Whether stages were stopped or told to leave for a change: it is gone on with then, not taken back."""
        pointer = self._session.pointer
        return pointer is not None and bool(pointer.held or pointer.leaving)

    def unfinished(self) -> Deployment | None:
        """The version that a deployer before us wrote for the same plan and did not finish."""
        return unfinished(self._session.log, self._wanted)

    def _half_done(self) -> Plan | None:
        """The plan that was about to take over when its deployer died."""
        pointer = self._session.pointer
        if pointer is None or pointer.candidate is None or not (pointer.held or pointer.leaving):
            return None
        found = self._session.log.deployments.get((self._plan.name, pointer.candidate))
        return None if found is None else found.decoded()

    def _made(self) -> Deployment:
        """The plan as the next version."""
        log, wanted = self._session.log, self._wanted
        pointer = self._session.pointer
        taken = [*log.versions(self._plan.name), 0 if pointer is None else pointer.version]
        return Deployment(
            name=self._plan.name,
            version=max(taken) + 1,
            plan=self._plan.to_json(),
            code=wanted.code,
            caller=wanted.caller,
            created_by=self._who,
            created_at=self._now_ms(),
            message=wanted.message,
        )

    def _point(self, deployment: Deployment) -> Desired:
        """Make it the version that runs: one transaction, with the deployment where that is new."""
        pointer, log = self._session.pointer, self._session.log
        running = running_version(log, self._plan.name)
        moved = {} if running is None else moves_of(running.decoded(), self._plan)
        desired = changes.deploy(
            pointer, self._plan.name, deployment.version, deployment.stages, moved=moved, reason=self._wanted.message
        )
        desired = replace(desired, offsets={})
        new = () if (deployment.name, deployment.version) in log.deployments else (deployment,)
        return self._session.point(desired, *new, also=outdated(log, desired))

    def candidate(self) -> Deployment:
        """Have the workers check the version without running it; the version as stored."""
        log = self._session.log
        deployment = self._wanted.stored or self.unfinished() or self._made()
        new = () if (deployment.name, deployment.version) in log.deployments else (deployment,)
        self._session.point(changes.candidate(self._session.pointer, self._plan.name, deployment.version), *new)
        return deployment


def unfinished(log: ControlLog, wanted: Wanted) -> Deployment | None:
    """The version of the same plan and code that workers were given to check, and that does not run yet."""
    pointer = log.pointers.get(wanted.plan.name)
    if pointer is None or pointer.candidate is None:
        return None
    found = log.deployments.get((pointer.name, pointer.candidate))
    if found is None or (found.plan["hash"], dict(found.code)) != (wanted.plan.hash, dict(wanted.code)):
        return None
    return found


def outdated(log: ControlLog, desired: Desired) -> list[Record]:
    """The removal of versions that are too old to be kept; those in use stay."""
    used = {desired.version, desired.candidate, *(each.version for each in desired.leaving)}
    old = [version for version in log.versions(desired.name) if version not in used][:-VERSIONS_KEPT]
    return [(log.deployment(desired.name, version).key, None) for version in old]


def refuse(diff: PlanDiff, allow: Collection[str]) -> None:
    """Raise for what would destroy something and was not asked for.

    Raises:
        ChangeRefused: with ``problems`` in its text, a line each.
    """
    refused: list[SageError] = [
        ChangeRefused(f"{entry.text}: {entry.effect}; if that is meant, {entry.needs}", where=diff.name)
        for entry in diff.entries
        if entry.needs and entry.needs not in allow
    ]
    if len(refused) == 1:
        raise refused[0]
    if refused:
        raise ChangeRefused("\n".join(each.message for each in refused), where=diff.name)
