"""What is scheduled of a deployment: its units, read from the stored plan without importing anything of it.

A unit is one stage; all sources together are one, since one group over the positions topic shares out their tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import orjson

from sage.cluster.code import step_digest
from sage.cluster.deployment import Deployment

SOURCES: Final = "offsets"
"""The name of the unit of all sources: their group's, and reserved, so that no stage has it."""

_SHARED: Final = ("guarantee", "defaults", "memory", "kafka")
"""Settings of the topology that every stage runs under."""

_TELLS_NOTHING: Final = frozenset({"reasons", "origin", "places"})
"""What a stage or step may differ in and do the same."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A stage, or all sources, of one deployment.

    Attributes:
        name: the stage's, or ``SOURCES``.
        stages: the stages in it.
        digest: the same for units that do the same in the same way; a change means a restart.
        width: how many workers can be of use: partitions of the widest input, or source tasks; 0 where only the broker
            knows.
        upstream: the units that write what it reads; those that it is in a loop with are left out.
        labels: what a worker must have to host it.
    """

    name: str
    stages: tuple[str, ...]
    digest: str
    width: int = 0
    upstream: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_sources(self) -> bool:
        """Whether these are the sources."""
        return self.name == SOURCES


def units_of(deployment: Deployment) -> tuple[Unit, ...]:
    """The units that workers host of ``deployment``: what runs at its caller is left out."""
    plan = deployment.plan
    stages = [stage for stage in plan["stages"] if stage["name"] not in deployment.caller]
    sources = [stage for stage in stages if stage["execution"] == "source"]
    steps = {step["name"]: {**step, "code": step_digest(deployment.code, step["name"])} for step in plan["steps"]}
    shared = {name: plan.get(name) for name in _SHARED}
    names = {stage["name"]: SOURCES for stage in sources}
    upstream = _upstream(stages, names)
    units = [
        _unit(stage, _digest([stage], steps, shared), upstream) for stage in stages if stage["execution"] != "source"
    ]
    if not sources:
        return tuple(units)
    # Partitions of the positions topic are numbered over all sources: another one's tasks move ours.
    tasks = plan["source_tasks"]
    return (_sources(sources, _digest(sources, steps, {**shared, "tasks": tasks}), tasks), *units)


def _unit(stage: Mapping[str, Any], digest: str, upstream: Mapping[str, set[str]]) -> Unit:
    known = [i["partitions"] for i in stage["inputs"]]
    name = stage["name"]
    before = upstream[name] - {other for other in upstream[name] if name in _all_before(other, upstream)}
    return Unit(
        name, (name,), digest, 0 if None in known else max(known, default=1), tuple(sorted(before)), _labels([stage])
    )


def _upstream(stages: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, set[str]]:
    """Unit -> the units that write what it reads, those of a loop included."""
    writers: dict[str, set[str]] = {}
    for stage in stages:
        for output in stage["outputs"]:
            writers.setdefault(output["topic"], set()).add(names.get(stage["name"], stage["name"]))
    found: dict[str, set[str]] = {SOURCES: set()}
    for stage in stages:
        if stage["name"] not in names:
            found[stage["name"]] = {unit for i in stage["inputs"] for unit in writers.get(i["topic"], ())}
    return found


def _all_before(unit: str, upstream: Mapping[str, set[str]]) -> set[str]:
    """Everything upstream of ``unit``, however far; itself where it is in a loop."""
    found: set[str] = set()
    ahead = [unit]
    while ahead:
        new = upstream[ahead.pop()] - found
        found |= new
        ahead += new
    return found


def _sources(stages: Sequence[Mapping[str, Any]], digest: str, tasks: Mapping[str, Iterable[str]]) -> Unit:
    names = tuple(stage["name"] for stage in stages)
    return Unit(SOURCES, names, digest, sum(len(list(tasks.get(name, ()))) for name in names), (), _labels(stages))


def _digest(
    stages: Iterable[Mapping[str, Any]], steps: Mapping[str, Mapping[str, Any]], shared: Mapping[str, Any]
) -> str:
    content = [
        [_telling(stage), *({**_telling(steps[name]), "inputs": None} for name in stage["steps"])] for stage in stages
    ]
    return blake2b(orjson.dumps([content, shared], option=orjson.OPT_SORT_KEYS), digest_size=12).hexdigest()


def _telling(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _TELLS_NOTHING}


def _labels(stages: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The labels of all. Sources that contradict each other are refused by every worker's check of the version."""
    found: dict[str, str] = {}
    for stage in stages:
        found.update(stage["options"].get("labels") or {})
    return found
