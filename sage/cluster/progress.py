"""How far the workers are with what is desired: what `--wait` waits for, and shows meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from sage.cluster.cluster_view import ClusterView
from sage.cluster.control_log import ControlLog
from sage.cluster.desired import Desired
from sage.cluster.status import Check, Problem, StageStatus, TopologyStatus
from sage.cluster.worker.reconcile import Goal, Peer, Place, hosts
from sage.cluster.worker.units import units_of
from sage.errors import DeadlineExceeded, InvalidTopology, NotFound, SageError, TransientFailure, Unreachable

POLL: Final = 0.2
"""Seconds between two looks."""

_READY: Final[Mapping[str, frozenset[str]]] = {
    "running": frozenset({"running", "held", "draining", "drained"}),
    "paused": frozenset({"paused"}),
    "drained": frozenset({"drained"}),
}

_LEFT: Final = frozenset({"stopped", "deleted"})


@dataclass(frozen=True, slots=True)
class StageProgress:
    """One stage of the desired version.

    Attributes:
        stage: its name.
        wanted: the workers that shall host it; none where no worker can.
        ready: those that do, as desired.
        others: workers that still run an older version of it, or shall not have it any more.
        problem: why it does not get there, or stands still there, as a worker says; empty where nobody does.
    """

    stage: str
    wanted: tuple[str, ...]
    ready: tuple[str, ...]
    others: tuple[str, ...] = ()
    problem: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it is where it shall be."""
        return bool(self.wanted) and set(self.wanted) <= set(self.ready) and not self.others


def peers_of(view: ClusterView, log: ControlLog) -> list[Peer]:
    """The live workers, as ``reconcile`` takes them."""
    return [
        Peer(
            name,
            worker.status.labels,
            takes=not worker.status.leaving and name not in log.drained_workers,
            topologies=worker.topologies,
        )
        for name, worker in view.live.items()
    ]


def progress_of(log: ControlLog, view: ClusterView, name: str) -> list[StageProgress]:
    """Where each stage of the desired version is; those of the caller's process are left out.

    Raises:
        NotFound: it is not deployed.
    """
    desired = log.current(name)
    deployment = log.deployment(name, desired.version)
    versions = {desired.version, *(each.version for each in desired.leaving)}
    goal = Goal(desired, {v: units_of(log.deployment(name, v)) for v in versions if (name, v) in log.deployments})
    peers = peers_of(view, log)
    chosen = hosts(goal, peers)
    found = []
    for unit in goal.units[desired.version]:
        wanted = chosen.get(Place(name, unit.name, desired.version), ())
        found += [_stage(desired, peers, stage, wanted) for stage in unit.stages]
    order = {stage: index for index, stage in enumerate(deployment.stages)}
    return sorted(found, key=lambda each: order[each.stage])


def _stage(desired: Desired, peers: Collection[Peer], stage: str, wanted: tuple[str, ...]) -> StageProgress:
    said = [
        (peer.worker, status)
        for peer in peers
        if (topology := peer.topologies.get(desired.name)) is not None
        for status in topology.stages
        if status.stage == stage
    ]
    good = _READY.get(desired.state, frozenset())
    restart = desired.restarts.get(stage, 0)

    def is_ready(status: StageStatus) -> bool:
        return status.version == desired.version and status.restart_number >= restart and status.state in good

    problems = [  # one that runs well again still says what it last stopped of
        f"{status.problem} (on worker {worker})"
        for worker, status in said
        if status.problem and (status.retry_at or status.stalled)
    ]
    return StageProgress(
        stage,
        wanted,
        tuple(worker for worker, status in said if is_ready(status)),
        tuple(worker for worker, status in said if worker not in wanted or status.version != desired.version),
        problems[0] if problems else "",
    )


def wait_until_settled(
    log: ControlLog,
    view: ClusterView,
    name: str,
    timeout: float,
    *,
    show: Callable[[list[StageProgress]], None] = lambda _: None,
) -> None:
    """Wait until the workers are where the pointer says: every stage of the version runs on its workers (or is paused,
    or drained, or gone), and nobody runs an older one.

    Args:
        log, view: readers, which are read on here.
        timeout: seconds.
        show: called at each look.

    Raises:
        NotFound: it is not deployed; or no worker lives.
        DeadlineExceeded: not within ``timeout``: what was waited for, and why as far as a worker says.
    """
    deadline = time.monotonic() + timeout
    written = log.position
    while True:
        try:
            log.read_to_end()
        except (Unreachable, TransientFailure) as error:  # workers outlive that, and so does who waits for them
            waiting = f"an answer of the brokers ({error.message})"
        else:
            desired = log.pointers.get(name) or log.current(name)  # a deleted one has to be left as well
            progress = [] if desired.state in _LEFT else progress_of(log, view, name)
            show(progress)
            waiting = unseen(view, written) or _waiting(desired, view, progress)
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"not within {timeout:.0f} s: {waiting}", where=name)
        view.poll(POLL)


def _waiting(desired: Desired, view: ClusterView, progress: Collection[StageProgress]) -> str:
    """What is still waited for; empty where all is as desired."""
    if desired.state in _LEFT:
        return next((f"{worker} has not left" for worker in hosting(view, desired.name)), "")
    if not view.live:
        return "no worker is online; start one with `sage worker run`"
    for each in progress:
        if not each.is_done:
            detail = each.problem or f"{len(each.ready)} of {len(each.wanted) or 'no'} workers"
            return f"stage {each.stage}: {detail}"
    leaving = {(each.stage, each.version) for each in desired.leaving}
    for worker in view.live.values():
        for status in stages_on(worker.topologies, desired.name):
            if (status.stage, status.version) in leaving and status.state != "drained":
                return f"stage {status.stage} of version {status.version} drains"
    return ""


def stages_on(topologies: Mapping[str, TopologyStatus], name: str) -> tuple[StageStatus, ...]:
    """What one worker says of the stages of a topology."""
    found = topologies.get(name)
    return () if found is None else found.stages


def hosting(view: ClusterView, name: str) -> list[str]:
    """Live workers that host a stage of a topology (a drained one is hosted by nobody)."""
    return [
        worker
        for worker, seen in view.live.items()
        if any(status.state != "drained" for status in stages_on(seen.topologies, name))
    ]


def unseen(view: ClusterView, position: int) -> str:
    """The first live worker that has not read what was written before ``position``; empty where all have."""
    return next(
        (f"worker {name} has not read it yet" for name, seen in view.live.items() if seen.status.seen < position), ""
    )


# ------------------------------------------------------------------------------------------------- preflight


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the live workers say of a version before it runs: worker -> its check."""

    checks: Mapping[str, Check]

    @property
    def problems(self) -> list[str]:
        """One line for each problem, with its worker."""
        return [str(problem) for problem in self._found]

    @property
    def _found(self) -> list[Problem]:
        return [problem.on(name) for name, check in self.checks.items() for problem in check.found]

    def raise_if_none_can(self, name: str) -> None:
        """Raise where no worker can run it.

        Raises:
            InvalidTopology: with a problem for each that a worker has, of its own kind; its exit code is theirs where
                they have the same.
        """
        if any(not check.problems for check in self.checks.values()):
            return
        problems = [_kind(each.code)(each.message, where=each.where or name) for each in self._found]
        codes = {problem.exit_code for problem in problems}
        raise InvalidTopology(
            "no worker can run it", where=name, exit_code=codes.pop() if len(codes) == 1 else None, problems=problems
        )


def _kind(code: str) -> type[SageError]:
    """The errors with a code; InvalidTopology for what this version does not know."""
    ahead: list[type[SageError]] = [SageError]
    while ahead:
        kind = ahead.pop()
        if vars(kind).get("code") == code:
            return kind
        ahead += kind.__subclasses__()
    return InvalidTopology


def wait_for_checks(log: ControlLog, view: ClusterView, name: str, version: int, timeout: float) -> Preflight:
    """Wait until every live worker has checked a version.

    Raises:
        NotFound: no worker lives.
        DeadlineExceeded: one of them has not checked it within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    deployment = log.deployment(name, version)
    view.read_fresh()
    while True:
        live = [peer for peer in peers_of(view, log) if peer.takes]
        checks = {
            peer.worker: check
            for peer in live
            if (topology := peer.topologies.get(name)) is not None
            for check in topology.checks
            if check.is_of(deployment)
        }
        silent = [peer.worker for peer in live if peer.worker not in checks]
        if live and not silent:
            return Preflight(checks)
        if time.monotonic() > deadline:
            if not live:
                raise NotFound("no worker is online to check it; start one with `sage worker run`", where=name)
            raise DeadlineExceeded(
                f"version {version} was not checked within {timeout:.0f} s by {', '.join(silent)}", where=name
            )
        view.poll(POLL)
