"""What a worker says: a small heartbeat of itself, and a word on each topology that it hosts.

Both live in one compacted topic, the heartbeat under ``worker``, the word under ``worker/topology``. Ages are told by
the broker's time of the heartbeat, never by a clock of this machine: a worker is dead after ``DEAD_AFTER`` seconds
without one, and what it said of topologies is void then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as dataclass_fields
from typing import Any, Final, Literal

import orjson

from sage.cluster.deployment import Deployment, Kinds, read_fields
from sage.errors import SageError
from sage.model.secrets import hide_secrets
from sage.runtime.runs.counters import Numbers

FORMAT = 1

BEAT_EVERY: Final = 2.0
"""Seconds between two heartbeats."""

DEAD_AFTER: Final = 10.0
"""Seconds of broker time without a heartbeat, after which a worker is dead."""

_KINDS: Final[Kinds] = {"labels": dict, "seen": int, "topologies": list}

StageState = Literal[
    "starting", "restoring", "running", "paused", "draining", "drained", "backing-off", "held", "stopping"
]


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A heartbeat.

    Attributes:
        worker: its id: unique, the same after a restart only where the user named it.
        host, pid, started_at: where and since when (milliseconds since the epoch).
        sage: SAGE's version.
        labels: for placement.
        leaving: it drains and takes nothing new on.
        cpu: cores in use since the last beat.
        memory: resident bytes.
        topologies: those of which it hosts a stage.
        seen: the offset of the control topic up to which it has read what is desired.
    """

    worker: str
    host: str = ""
    pid: int = 0
    started_at: int = 0
    sage: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    leaving: bool = False
    cpu: float = 0.0
    memory: int = 0
    topologies: tuple[str, ...] = ()
    seen: int = 0

    @property
    def key(self) -> bytes:
        """Where it stands in the topic."""
        return self.worker.encode()

    def encode(self) -> bytes:
        """As it is written."""
        return orjson.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def decode(cls, data: bytes) -> WorkerStatus:
        """What ``encode`` wrote. Raises InvalidTopology."""
        fields = read_fields(data, "heartbeat", FORMAT, _KINDS)
        return cls(**{**_known(cls, fields), "topologies": tuple(fields.get("topologies", ()))})


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One actor on one worker.

    Attributes:
        version: of the deployment that it runs.
        partitions: ``topic:partition`` of its input, as assigned now.
        read, written, retried, skipped, dead: records since it was started here.
        since: when that was, in milliseconds since the epoch; 0 where it does not run.
        steps: the same five numbers of each of its steps.
        rate: records read per second since the last word.
        latency: seconds of work per record since the last word: ``p50``, ``p95``, ``p99``; empty where none came.
        restored: how much of its state is there, 0 to 1; ``None`` where nothing is restored.
        restarts: how often it was started anew after a failure.
        restart_number: of ``Desired.restarts``, under which it was started.
        problem: why it does not run, or last stopped.
        retry_at: when it is started again, milliseconds since the epoch; 0 where it is not waiting.
        transactional_ids: of its producers, so that a successor can end what they left open.
        stalled: whether it stands still now with records waiting; ``problem`` says of what.
    """

    stage: str
    version: int
    state: StageState
    partitions: tuple[str, ...] = ()
    read: int = 0
    written: int = 0
    retried: int = 0
    skipped: int = 0
    dead: int = 0
    since: int = 0
    steps: Mapping[str, Numbers] = field(default_factory=dict)
    rate: float = 0.0
    latency: Mapping[str, float] = field(default_factory=dict)
    restored: float | None = None
    restarts: int = 0
    restart_number: int = 0
    problem: str = ""
    retry_at: int = 0
    transactional_ids: tuple[str, ...] = ()
    stalled: bool = False


CheckKind = Literal["", "incompatible", "refused", "unready"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps a deployment from running on a worker.

    Attributes:
        message: what, without place and code.
        where: where the user can go to; empty where that is not known.
        code: of the error that it was; empty where it was none of SAGE's.
    """

    message: str
    where: str = ""
    code: str = ""

    @classmethod
    def of(cls, error: SageError) -> Problem:
        """The parts of an error."""
        return cls(error.message, error.where or "", error.code)

    def on(self, worker: str) -> Problem:
        """The same, with the worker named in it, once."""
        place = f"(on worker {worker})"
        return self if place in self.message else replace(self, message=f"{self.message} {place}")

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message} [{self.code}]" if self.code else f"{place}{self.message}"


@dataclass(frozen=True, slots=True)
class Check:
    """What a worker found when it checked a deployment without running it.

    Attributes:
        problems: one line for each thing that keeps it from running here; empty where it could run.
        kind: ``incompatible`` (other code), ``refused`` (``--allow-code``, ``--allow-env``) or ``unready`` (a variable,
            an import, a collection, a dimension); empty where it could run.
        parts: what the lines were made of; empty where an older SAGE wrote it.
        created_at: of the deployment that was looked at: the number of one that was taken back is given again. 0 where
            an older SAGE wrote it.
    """

    version: int
    problems: tuple[str, ...] = ()
    kind: CheckKind = ""
    parts: tuple[Problem, ...] = ()
    created_at: int = 0

    @classmethod
    def of(cls, version: int, kind: CheckKind, problems: Iterable[Problem]) -> Check:
        """A check that found these."""
        parts = tuple(problems)
        return cls(version, tuple(map(str, parts)), kind, parts)

    def is_of(self, deployment: Deployment) -> bool:
        """Whether it was this one that was looked at, and not an earlier one with its number."""
        return self.version == deployment.version and self.created_at in {0, deployment.created_at}

    @property
    def found(self) -> tuple[Problem, ...]:
        """Its problems, by their parts where those are known."""
        return self.parts or tuple(map(Problem, self.problems))


@dataclass(frozen=True, slots=True)
class TopologyStatus:
    """What one worker does of one topology.

    Attributes:
        settled: seconds for which its stages, their states and their partitions have been these.
    """

    worker: str
    topology: str
    stages: tuple[StageStatus, ...] = ()
    checks: tuple[Check, ...] = ()
    settled: float = 0.0

    @property
    def key(self) -> bytes:
        """Where it stands in the topic."""
        return f"{self.worker}/{self.topology}".encode()

    def encode(self) -> bytes:
        """As it is written: problems are words of exceptions, which may quote secrets; those are hidden."""
        stages = tuple(replace(each, problem=hide_secrets(each.problem)) for each in self.stages)
        checks = tuple(map(_without_secrets, self.checks))
        return orjson.dumps({"format": FORMAT, **asdict(replace(self, stages=stages, checks=checks))})

    @classmethod
    def decode(cls, data: bytes) -> TopologyStatus:
        """What ``encode`` wrote. Raises InvalidTopology."""
        fields: dict[str, Any] = read_fields(data, "status", FORMAT)
        stages = tuple(map(_stage, fields.get("stages", ())))
        checks = tuple(map(_check, fields.get("checks", ())))
        return cls(**{**_known(cls, fields), "stages": stages, "checks": checks})


def _known(kind: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What there is room for in ``kind``: a newer worker may say more, and what it does counts all the same."""
    names = {each.name for each in dataclass_fields(kind)}
    return {name: value for name, value in fields.items() if name in names}


def _stage(fields: Mapping[str, Any]) -> StageStatus:
    lists = {name: tuple(fields.get(name, ())) for name in ("partitions", "transactional_ids")}
    steps: dict[str, Numbers] = {
        step: (read, written, retried, skipped, dead)
        for step, (read, written, retried, skipped, dead) in fields.get("steps", {}).items()
    }
    return StageStatus(**{**_known(StageStatus, fields), **lists, "steps": steps})


def _check(fields: Mapping[str, Any]) -> Check:
    parts = tuple(Problem(**_known(Problem, each)) for each in fields.get("parts", ()))
    return Check(**{**_known(Check, fields), "problems": tuple(fields["problems"]), "parts": parts})


def _without_secrets(check: Check) -> Check:
    parts = tuple(replace(each, message=hide_secrets(each.message)) for each in check.parts)
    return replace(check, problems=tuple(map(hide_secrets, check.problems)), parts=parts)
