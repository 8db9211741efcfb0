"""What runs on a cluster's workers, as rows for people and programs: joined from what is desired, what workers say,
and what the brokers count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self

from sage.cluster.cluster_view import ClusterView, SeenWorker
from sage.cluster.control_log import ControlLog
from sage.cluster.deployment import Deployment
from sage.cluster.desired import Desired
from sage.cluster.names import ControlTopics
from sage.cluster.progress import StageProgress, progress_of, stages_on
from sage.cluster.status import StageStatus
from sage.errors import Forbidden, NotFound
from sage.operations.groups import input_lags
from sage.operations.ownership import not_owned
from sage.ports import Admin, KafkaClients

NO_WORKER: Final = "no worker is online; start one with `sage worker run`"


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage of the version that shall run, over all its workers.

    Attributes:
        state: what its workers say, the worst first; ``waiting`` where none of them hosts it, ``caller`` where it runs
            in the process that deployed.
        ready, wanted: workers that host it as desired, and that shall.
        rate: records read per second.
        lag: records on its inputs that it has not finished; ``None`` for a source.
        eta: seconds until the lag is gone at this rate; ``None`` where nobody can tell.
        partitions: ``topic:partition`` -> worker.
        restored: how much of its state is there, 0 to 1, on the worker that is furthest behind; ``None`` where nothing
            is being restored.
        problem: why it does not run, or last stopped; or which of its partitions no worker has.
    """

    stage: str
    steps: tuple[str, ...]
    state: str
    ready: int
    wanted: int
    rate: float
    lag: int | None
    eta: float | None
    read: int
    written: int
    retried: int
    skipped: int
    dead: int
    workers: tuple[str, ...] = ()
    partitions: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    restored: float | None = None


@dataclass(frozen=True, slots=True)
class TopologyRow:
    """One topology.

    Attributes:
        state: what is desired: ``running``, ``paused`` and so on; ``checking`` while there is only a candidate.
        health: ``ok``, ``starting`` (not where it shall be yet), ``failing`` (a worker names a problem), ``stalled``
            (no worker can host a stage, or has some of its partitions), or empty where nothing shall run.
        stages, ready: how many there are, and how many are where they shall be.
    """

    name: str
    version: int
    state: str
    health: str
    stages: int
    ready: int
    workers: tuple[str, ...]
    changed_at: int
    changed_by: str
    reason: str
    problem: str = ""


class Cluster:
    """Readers of one cluster's control topics. A context manager.

    Attributes:
        log: what is desired.

    Raises:
        NotFound: nothing was ever deployed there.
        Unreachable, Unauthorized: the brokers.
    """

    def __init__(self, clients: KafkaClients, topics: ControlTopics) -> None:
        self.clients = clients
        self.log = ControlLog(clients, topics)
        self._topics = topics
        self._view: ClusterView | None = None
        self._admin: Admin | None = None
        try:
            self.log.read_to_end()
        except BaseException:
            self.close()
            raise

    @property
    def view(self) -> ClusterView:
        """What workers say; read when it is first asked for, since whether somebody lives takes a moment to tell."""
        if self._view is None:
            self._view = ClusterView(self.clients, self._topics)
            self._view.read_fresh()
        return self._view

    @property
    def admin(self) -> Admin:
        """Topics and offsets."""
        if self._admin is None:
            self._admin = self.clients.admin()
        return self._admin

    def refresh(self) -> None:
        """Read what was written since. Raises Unreachable."""
        self.log.read_to_end()
        self.view.read_to_end()

    def close(self) -> None:
        """Release the readers. Twice is fine."""
        for reader in (self.log, self._view, self._admin):
            if reader is not None:
                reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------- topologies

    def topologies(self, *, deleted: bool = False) -> list[TopologyRow]:
        """All of them by name; with ``deleted`` those too whose data is kept."""
        pointers = self.log.pointers if deleted else self.log.running
        return [self._topology(pointer) for _, pointer in sorted(pointers.items())]

    def topology(self, name: str) -> TopologyRow:
        """One of them. Raises NotFound."""
        return self._topology(self.log.current(name))

    def _topology(self, pointer: Desired) -> TopologyRow:
        progress = self._progress(pointer)
        workers = [worker for worker, seen in self.view.live.items() if any(stages_on(seen.topologies, pointer.name))]
        unowned = next(iter(self._not_owned(pointer, progress).values()), "")
        health, problem = _health(pointer, progress, self._why_nowhere(pointer), unowned)
        deployment = self.log.deployments.get((pointer.name, pointer.version))
        if deployment is None and health:
            health, problem = "stalled", self._why_unreadable(pointer)
        return TopologyRow(
            pointer.name, pointer.version,
            "checking" if pointer.version == 0 and pointer.state != "deleted" else pointer.state, health,
            len(deployment.stages) if deployment is not None else 0,
            sum(each.is_done for each in progress), tuple(workers),
            pointer.changed_at, pointer.changed_by, pointer.reason, problem,
        )  # fmt: skip

    def _why_nowhere(self, pointer: Desired) -> str:
        """Why a stage that nobody can host is hosted by nobody: what the first worker says that looked at it."""
        if not self.view.live:
            return NO_WORKER
        said = (
            str(check.found[0].on(worker))
            for worker, seen in self.view.live.items()
            if pointer.name in seen.topologies
            for check in seen.topologies[pointer.name].checks
            if check.version == pointer.version and check.problems
        )
        return next(said, "no worker can host it; see `sage worker list`")

    def _why_unreadable(self, pointer: Desired) -> str:
        reason = self.log.foreign.get(f"{pointer.name}@{pointer.version}", "it is not there")
        return f"version {pointer.version} can't be read: {reason}"

    def _progress(self, pointer: Desired) -> list[StageProgress]:
        if pointer.version == 0 or pointer.state in {"stopped", "deleted"}:
            return []
        if (pointer.name, pointer.version) not in self.log.deployments:  # which must not hide the others
            return []
        return progress_of(self.log, self.view, pointer.name)

    def _not_owned(self, pointer: Desired, progress: Sequence[StageProgress]) -> dict[str, str]:
        """Stage -> which of its partitions no worker has, where it runs and should have them."""
        if not progress or pointer.state != "running":
            return {}
        try:
            return not_owned(self.admin, self.view, self.log.deployment(pointer.name, pointer.version), progress)
        except Forbidden:  # who may look at the control topics need not see those of each topology
            return {}

    # -------------------------------------------------------------------------------------------- stages

    def stages(self, name: str) -> list[StageRow]:
        """The stages of the version that shall run, in the order of the plan; those of older versions that still
        drain after them.

        Raises:
            NotFound: it is not deployed.
        """
        pointer = self.log.current(name)
        if pointer.version == 0:
            return []
        deployment = self.log.deployment(name, pointer.version)
        found = self._progress(pointer)
        progress, unowned = {each.stage: each for each in found}, self._not_owned(pointer, found)
        lag = self._lags(deployment)
        said = _said(self.view.live, name)
        rows = []
        for stage in deployment.plan["stages"]:
            words = [(worker, one) for worker, one in said if one.stage == stage["name"]]
            row = _stage_row(deployment, stage, words, progress.get(stage["name"]), lag.get(stage["group"]))
            rows.append(replace(row, problem=unowned.get(stage["name"], row.problem)))
        return rows

    def _lags(self, deployment: Deployment) -> dict[str, int]:
        """Group -> lag over its inputs."""
        read = {stage["group"]: [one["topic"] for one in stage["inputs"]] for stage in deployment.plan["stages"]}
        read.pop("", None)
        return input_lags(self.admin, read)


def _said(live: Mapping[str, SeenWorker], name: str) -> list[tuple[str, StageStatus]]:
    return [(worker, one) for worker, seen in live.items() for one in stages_on(seen.topologies, name)]


_WORST: Final = ("backing-off", "starting", "restoring", "stopping", "draining", "held", "paused", "drained", "running")


def _stage_row(
    deployment: Deployment,
    stage: Mapping[str, Any],
    words: Sequence[tuple[str, StageStatus]],
    progress: StageProgress | None,
    lag: int | None,
) -> StageRow:
    own = [one for _, one in words if one.version == deployment.version]
    rate = sum(one.rate for one in own)
    problem = next((f"{one.problem} (on worker {worker})" for worker, one in words if one.problem), "")
    return StageRow(
        stage["name"],
        tuple(stage["steps"]),
        _state(stage, deployment.caller, [one.state for one in own]),
        len(progress.ready) if progress is not None else 0,
        len(progress.wanted) if progress is not None else 0,
        round(rate, 1),
        lag,
        round(lag / rate, 1) if lag and rate > 0 else 0.0 if lag == 0 else None,
        sum(one.read for one in own),
        sum(one.written for one in own),
        sum(one.retried for one in own),
        sum(one.skipped for one in own),
        sum(one.dead for one in own),
        tuple(worker for worker, one in words if one.version == deployment.version),
        {place: worker for worker, one in words for place in one.partitions if one.version == deployment.version},
        problem,
        min((one.restored for one in own if one.restored is not None), default=None),
    )


def _state(stage: Mapping[str, Any], caller: Collection[str], states: Iterable[str]) -> str:
    found = set(states)
    if not found and set(stage["steps"]) & set(caller):
        return "caller"
    return next((state for state in _WORST if state in found), "waiting")


def _health(pointer: Desired, progress: Sequence[StageProgress], why_nowhere: str, unowned: str) -> tuple[str, str]:
    if pointer.version == 0 or pointer.state in {"stopped", "deleted", "drained"}:
        return "", ""
    problem = next((each.problem for each in progress if each.problem), "")
    if problem:
        return "failing", problem
    if any(not each.wanted for each in progress):
        return "stalled", why_nowhere
    if unowned:
        return "stalled", unowned
    return ("ok", "") if all(each.is_done for each in progress) else ("starting", "")


def not_deployed(address: str, name: str) -> NotFound:
    """The error for a topology on brokers where nothing was ever deployed."""
    return NotFound(
        f"is not deployed on {address}: nothing ever was; `sage topology deploy TARGET` does it", where=name
    )
