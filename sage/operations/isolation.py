"""A topology as one of another name: the same steps, on topics and groups of their own, given other records.

For measuring and evaluating beside what is deployed: nothing of the original's is read, committed or written, but for
the memory that its steps read.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sage.errors import Conflict, InvalidTopology, SageError, UnknownName
from sage.graph.endpoints import collection_of
from sage.graph.topology import Step, Topology
from sage.graph.validate import validated
from sage.model.names import edge_topic
from sage.operators.memory_writer import MemoryWriter
from sage.plan.plan import Plan
from sage.ports import Admin, KafkaClients
from sage.spec.options import Guarantee, Options
from sage.spec.suggest import hint

LEAVING: Final = 20.0
"""Seconds in which members are gone from a run's groups: one that was killed stays for its session time-out, 6 s. The
embedded broker keeps it for longer than anybody waits: its group is left, which the error says."""

_LONGEST_PREFIX: Final = 100


@dataclass(frozen=True, slots=True)
class Isolated:
    """A topology that stands for another one.

    Attributes:
        topology: it; its name is that of the run.
        entry: the source step in whose place records come in.
        original: that step as it was.
        input_topic: where those records are written. It is the reader's to make.
        input_format: how that topic's values are read.
        partitions: of that topic, as the entry's own edge would have.
    """

    topology: Topology
    entry: str
    original: Step
    input_topic: str
    input_format: str
    partitions: int

    @property
    def name(self) -> str:
        """The run's name, with which all its topics and groups begin."""
        return self.topology.name


def run_name(topology: str, purpose: str) -> str:
    """A name that no other run has: ``rag-qa-eval-1f0c9a2b``."""
    return f"{topology[:_LONGEST_PREFIX]}-{purpose}-{uuid.uuid4().hex[:8]}"


def isolated(
    topology: Topology, name: str, *, source: str | None = None, guarantee: Guarantee | None = None
) -> Isolated:
    """``topology`` under another name: its ``source`` replaced by a topic, every sink by a topic of the run.

    Other sources give nothing. Error branches, routes and loops stay as they are.

    Args:
        topology: the original.
        name: the run's, as ``run_name`` makes it.
        source: the step in whose place records come in; needed where there are several.
        guarantee: another one than the topology's.

    Raises:
        UnknownName: there is no source of that name (exit code 2).
        InvalidTopology: there is none at all, or several and none was named (exit code 2); or a step writes to memory.
    """
    _refuse_writers(topology)
    renamed = _own_loops(topology, name)
    entry = _entry(topology, source, renamed)
    steps = tuple(_step(step, entry, name, renamed) for step in topology.steps)
    made = validated(replace(topology, name=name, steps=steps, guarantee=guarantee or topology.guarantee, moved={}))
    partitions = entry.options.over(topology.defaults).partitions or 1
    return Isolated(made, entry.name, entry, edge_topic(name, entry.name), _format(entry), partitions)


def sources_of(topology: Topology) -> list[str]:
    """The source steps that take records in from outside."""
    return [step.name for step in _sources(topology, _own_loops(topology, ""))]


def _sources(topology: Topology, loops: Mapping[str, str]) -> list[Step]:
    return [step for step in topology.steps if step.kind == "source" and step.config.get("topic") not in loops]


def _entry(topology: Topology, source: str | None, loops: Mapping[str, str]) -> Step:
    found = _sources(topology, loops)
    names = [step.name for step in found]
    if source is not None:
        if source not in names:
            raise UnknownName(
                f"there is no source {source!r}; {hint(source, names, what='sources')}",
                where=topology.name, exit_code=2,
            )  # fmt: skip
        return topology.by_name[source]
    if len(found) != 1:
        raise InvalidTopology(
            f"it has {len(found)} sources ({', '.join(names)}): name the one to feed with --source"
            if found else "it has no source that records could come in by",
            where=topology.name, exit_code=2 if found else None,
        )  # fmt: skip
    return found[0]


def _own_loops(topology: Topology, name: str) -> dict[str, str]:
    """Topics that the topology writes by ``to`` and reads again, with what they are called in the run."""
    read = {step.config["topic"] for step in topology.steps if step.kind == "source" and step.is_topic}
    found: dict[str, str] = {}
    for step in topology.steps:
        if step.kind == "sink" and step.is_topic and step.config["topic"] in read:
            found.setdefault(step.config["topic"], edge_topic(name, step.name))
    return found


def _step(step: Step, entry: Step, name: str, loops: Mapping[str, str]) -> Step:
    if step.kind == "sink":
        # A topic that several sinks write stays one, so that its records are merged as they are there.
        topic = loops.get(step.config.get("topic", ""), edge_topic(name, step.name))
        return _on_topic(step, {"topic": topic, **_form(step)}, step.options.partitions)
    if step.kind != "source":
        return step
    if step is entry:
        return _on_topic(step, {"topic": edge_topic(name, step.name), "format": _format(step)}, None)
    if step.config.get("topic") in loops:
        return _on_topic(step, {**step.config, "topic": loops[step.config["topic"]]}, None)
    return replace(step, target=collection_of(()), reference="", config={}, places={})


def _on_topic(step: Step, config: Mapping[str, Any], partitions: int | None) -> Step:
    options = Options() if partitions is None else Options(partitions=partitions)
    return replace(step, target="topic", reference="", config=dict(config), options=options, places={})


def _format(entry: Step) -> str:
    return str(entry.config.get("format", "json")) if entry.is_topic else "json"


def _form(sink: Step) -> dict[str, Any]:
    return {"format": sink.config["format"]} if sink.is_topic and "format" in sink.config else {}


def _refuse_writers(topology: Topology) -> None:
    for step in topology.steps:
        if isinstance(step.target, type) and issubclass(step.target, MemoryWriter):
            raise InvalidTopology(
                f"step {step.name!r} writes to a collection, and a run beside the real one only reads memory; "
                "leave it out of the topology that you measure",
                where=step.where,
            )


def output_topics(plan: Plan) -> list[str]:
    """Where a run's results are: topics that it writes and does not read itself; sinks in the topology's order."""
    read = {given.topic for stage in plan.stages for given in stage.inputs}
    written = dict.fromkeys(output.topic for stage in plan.stages for output in stage.outputs)
    sinks = [step.config["topic"] for step in plan.topology.steps if step.kind == "sink"]
    found = [topic for topic in written if topic not in read]
    return sorted(found, key=lambda topic: sinks.index(topic) if topic in sinks else len(sinks))


def remove_run(clients: KafkaClients, name: str, data_dir: Path, *, timeout: float = LEAVING) -> None:
    """Delete the topics and groups of a run whose processes have ended, and its copies of state in this folder.

    Topics go first: they take the room, and a member that was killed keeps nobody from deleting them.

    Raises:
        SageError: the brokers can't be reached, or don't allow it, or a group has members to the end.
    """
    for place in (data_dir / "state").glob(f"slot-*/{name}"):
        shutil.rmtree(place, ignore_errors=True)
    admin = clients.admin()
    begin = f"{name}."
    try:
        admin.delete([info.name for info in admin.list_topics() if info.name.startswith(begin)])
        _delete_groups(admin, [group for group in admin.list_groups() if group.startswith(begin)], timeout)
    finally:
        admin.close()


def _delete_groups(admin: Admin, groups: Sequence[str], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            admin.delete_groups(groups)
        except Conflict as error:  # a member that left a moment ago
            if time.monotonic() > deadline:
                raise SageError(f"its groups are not empty after {timeout:.0f} s: {error.message}") from error
            time.sleep(0.2)
        else:
            return
