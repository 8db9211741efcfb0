"""What makes a graph a topology that can run: everything that can be seen without a broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from sage.errors import InvalidTopology, SageError, UnknownName
from sage.graph.loops import back_edges
from sage.graph.topic_names import topic_problems
from sage.graph.topology import Input, Step, Topology
from sage.model.names import check_name
from sage.spec.cel import CelPredicate
from sage.spec.settings import check_kafka
from sage.spec.shape import shape_of
from sage.spec.suggest import hint

RESERVED_BRANCHES = frozenset({"error"})
"""Branches that every step has: ``error`` takes its failed records."""

_EMITTING = frozenset({"operator", "map", "flatmap", "process"})
"""Kinds whose code can give values to named branches by ``ctx.emit``."""


def validated(topology: Topology) -> Topology:
    """The topology with its steps in topological order.

    Raises:
        InvalidTopology: it can't run; ``problems`` holds everything that is wrong.
    """
    problems = problems_of(topology)
    if problems:
        raise InvalidTopology.of(problems)
    return replace(topology, steps=ordered(topology.steps))


def problems_of(topology: Topology) -> list[SageError]:
    """Everything that keeps the topology from running, in the order of its steps."""
    problems: list[SageError] = list(_name_problems(topology))
    if not topology.steps:
        problems.append(InvalidTopology("has no steps; start with a source", where=f"topology {topology.name!r}"))
    steps = {step.name: step for step in topology.steps}
    for step in topology.steps:
        problems += _input_problems(step, steps)
        problems += _option_problems(step)
        problems += _predicate_problems(step)
    problems += _cycle_problems(topology.steps)
    problems += topic_problems(topology)
    problems += [problem.error(f"kafka.{problem.path[0]}") for problem in check_kafka(topology.kafka)]
    problems += _moved_problems(topology)
    return problems


def ordered(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps so that each comes after its inputs, and otherwise as they were written.

    Edges that go back to a loop don't count. Steps on another cycle, and those behind one, are left out.
    """
    waiting = list(steps)
    back = back_edges(waiting)
    done: dict[str, Step] = {}
    while True:
        ready = next(
            (step for step in waiting if all(i.step in done or (step.name, i) in back for i in step.inputs)), None
        )
        if ready is None:
            return tuple(done.values())
        waiting.remove(ready)
        done[ready.name] = ready


def _name_problems(topology: Topology) -> Iterator[SageError]:
    try:
        check_name(topology.name, what="topology")
    except InvalidTopology as error:
        yield error
    for step in topology.steps:
        for name, what in [(step.name, "step"), *((branch, "branch") for branch in _branches(step))]:
            try:
                check_name(name, what=what, where=step.where)
            except InvalidTopology as error:
                yield error
        for branch in RESERVED_BRANCHES.intersection(_branches(step)):
            yield InvalidTopology(
                f"branch {branch!r} is where failed records go; give it another name",
                where=step.where_of(f"route.{branch}"),
            )
    first: dict[str, Step] = {}
    for step in topology.steps:
        if step.name in first:
            yield InvalidTopology(f"step name {step.name!r} is taken by {first[step.name].where}", where=step.where)
        first.setdefault(step.name, step)


def _branches(step: Step) -> tuple[str, ...]:
    if step.kind != "route":
        return ()
    default = () if step.default_branch is None or step.default_branch in step.branches else (step.default_branch,)
    return (*step.branches, *default)


def _input_problems(step: Step, steps: dict[str, Step]) -> Iterator[SageError]:
    where = step.where_of("from")
    if step.kind == "source":
        if step.inputs:
            yield InvalidTopology(f"a source reads from no step; found {step.inputs[0]}", where=where)
        return
    if not step.inputs:
        yield InvalidTopology("reads from nothing; say which step it reads", where=step.where)
    for given, times in Counter(step.inputs).items():
        if times > 1:
            yield InvalidTopology(f"reads {given} {times} times; once is enough", where=where)
        upstream = steps.get(given.step)
        if upstream is None:
            others = [name for name in steps if name != step.name]
            yield UnknownName(f"there is no step {given.step!r}; {hint(given.step, others, what='steps')}", where=where)
        else:
            yield from _branch_problems(given, upstream, where)


def _branch_problems(given: Input, upstream: Step, where: str) -> Iterator[SageError]:
    if given.branch in RESERVED_BRANCHES and upstream.kind not in {"source", "union"}:
        return
    if upstream.kind == "sink":
        yield InvalidTopology(f"{given.step} is a sink; nothing can be read from it", where=where)
    elif upstream.kind == "route":
        branches = _branches(upstream)
        if given.branch is None:
            choice = " or ".join(f"{given.step}.{branch}" for branch in branches)
            yield InvalidTopology(f"{given.step} is a route; read one of its branches: {choice}", where=where)
        elif given.branch not in branches:
            found = hint(given.branch, branches, what="branches")
            yield UnknownName(f"{given.step} has no branch {given.branch!r}; {found}", where=where)
    elif given.branch is not None and upstream.kind not in _EMITTING:
        yield InvalidTopology(f"{given.step} has no branches; read {given.step}", where=where)
    elif given.branch is not None:
        try:
            check_name(given.branch, what="branch", where=where)
        except InvalidTopology as error:
            yield error


def _option_problems(step: Step) -> Iterator[SageError]:
    options = step.options
    if step.target is None or isinstance(step.target, str):
        return
    shape = shape_of(step.target, step.kind)
    if options.blocking and shape.is_async and step.kind not in {"source", "sink"}:
        yield InvalidTopology(
            "blocking=True is for code that waits without await, and this is async; leave it out",
            where=step.where_of("blocking"),
        )
    if options.ordering == "none" and step.kind == "process":
        yield InvalidTopology(
            "ordering: none is not for steps that keep state: records of one key need it in turn; leave it out",
            where=step.where_of("ordering"),
        )
    if options.batch is not None and step.kind not in {"map_batches", "sink"} and not shape.has_batch:
        yield InvalidTopology(
            "batch is for operators with process_batch; use map_batches for a function of a list",
            where=step.where_of("batch"),
        )


def _predicate_problems(step: Step) -> Iterator[SageError]:
    for branch, predicate in step.branches.items():
        if isinstance(predicate, str):
            try:
                CelPredicate(predicate, branch=branch, where=step.where_of(f"route.{branch}"))
            except InvalidTopology as error:
                yield error


def _cycle_problems(steps: tuple[Step, ...]) -> Iterator[SageError]:
    """Every cycle once, named along its way."""
    sound = {step.name for step in ordered(_with_known_inputs(steps))}
    left = {step.name: step for step in steps if step.name not in sound}
    seen: set[str] = set()
    for start in left:
        path: list[str] = []
        name: str | None = start
        while name is not None and name not in path and name not in seen:
            path.append(name)
            name = next((i.step for i in left[name].inputs if i.step in left), None)
        if name in path:
            cycle = list(reversed([*path[path.index(str(name)) :], str(name)]))
            first = left[cycle[0]]
            yield InvalidTopology(
                f"steps form a cycle: {' -> '.join(cycle)}; cut one of them, or let it begin with a loop: "
                "stream.loop(max_hops=...), in YAML a union with max_hops",
                where=first.where_of("from"),
            )
        seen.update(path)


def _with_known_inputs(steps: tuple[Step, ...]) -> list[Step]:
    names = {step.name for step in steps}
    return [replace(step, inputs=tuple(i for i in step.inputs if i.step in names)) for step in steps]


def _moved_problems(topology: Topology) -> Iterator[SageError]:
    names = {step.name for step in topology.steps}
    for old, new in topology.moved.items():
        if old in names:
            yield InvalidTopology(f"{old} is still a step; remove it, or the move", where=f"moved.{old}")
        if new not in names:
            yield UnknownName(f"there is no step {new!r}; {hint(new, names, what='steps')}", where=f"moved.{old}")
