"""A stored plan made usable again: the way back from ``encoding``.

Workers never plan. They import the code that a plan names, and compare what they found with what was deployed: a
decoded plan has the hash of the stored one exactly where its code is the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol, get_args

from sage.errors import InvalidTopology, SageError
from sage.graph.topology import Input, Origin, Step, StepKind, TopicSettings, Topology
from sage.plan.encoding import FORMAT, Elsewhere
from sage.plan.plan import Plan, Stage, StageInput, StageOutput
from sage.ports import TopicSpec
from sage.spec.options import Options
from sage.spec.registry import ComponentKind, Registry


class Loader(Protocol):
    """Gives what a reference of a stored plan names."""

    def __call__(self, reference: str, component: ComponentKind) -> Any:
        """The function or class.

        Args:
            reference: ``package.module:name``, or a registered name.
            component: among which registered names; "operator" for all that is neither source nor sink.

        Raises:
            SageError: it is not there, may not be imported, or fails to be.
        """
        ...


def load_installed(reference: str, component: ComponentKind) -> Any:
    """The loader that imports whatever is installed. Raises UnknownName or InvalidTopology."""
    return Registry.installed().load(component, reference)


def plan_from_json(data: Mapping[str, Any], *, load: Loader | None = None, elsewhere: Collection[str] = ()) -> Plan:
    """The plan that ``Plan.to_json`` gave.

    Args:
        data: the JSON form, with or without its ``hash``.
        load: imports the code. Without one nothing is imported, and every function and class is an ``Elsewhere``:
            enough to show a plan and to compare it.
        elsewhere: steps whose code is not imported in any case: those that run in the process that deployed.

    Raises:
        InvalidTopology: it is of a newer SAGE or damaged, or code can't be loaded; ``problems`` has one error for each,
            with the place of the step.
    """
    if data.get("format", 0) > FORMAT:
        raise InvalidTopology(f"the plan is of a newer SAGE (format {data['format']}); upgrade this one")
    decoding = _Decoding(load, frozenset(elsewhere))
    try:
        plan = decoding.plan(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidTopology(f"not a plan that SAGE wrote: {type(error).__name__}: {error}") from error
    if decoding.problems:
        raise InvalidTopology.of(decoding.problems)
    return plan


class _Decoding:
    """One run; what can't be loaded is collected."""

    def __init__(self, load: Loader | None, elsewhere: frozenset[str]) -> None:
        self._load = load
        self._elsewhere = elsewhere
        self.problems: list[SageError] = []

    def plan(self, data: Mapping[str, Any]) -> Plan:
        topology = Topology(
            name=data["name"],
            steps=tuple(self._step(step) for step in data["steps"]),
            guarantee=data["guarantee"],
            defaults=Options(**data["defaults"]),
            topics=TopicSettings(**data["topic_settings"]),
            memory=data["memory"],
            kafka=data["kafka"],
            moved=data["moved"],
        )
        return Plan(
            topology=topology,
            stages=tuple(_stage(stage, topology.by_name) for stage in data["stages"]),
            topics=tuple(TopicSpec(**topic) for topic in data["topics"]),
            external=tuple(data["external"]),
            source_tasks={name: tuple(tasks) for name, tasks in data["source_tasks"].items()},
        )

    def _step(self, data: Mapping[str, Any]) -> Step:
        kind: StepKind = data["kind"]
        if kind not in get_args(StepKind):
            raise ValueError(f"no kind of step: {kind!r}")
        origin = None if data["origin"] is None else Origin(*data["origin"])
        where = str(origin) if origin is not None else f"step {data['name']!r}"
        here = data["name"] not in self._elsewhere
        component: ComponentKind = "source" if kind == "source" else "sink" if kind == "sink" else "operator"
        state = data["state"]
        timer = data["on_timer"]
        return Step(
            name=data["name"],
            kind=kind,
            target=self._code(data, component, where, here),
            reference="" if data["literal"] else data["target"],
            config=data["config"],
            options=Options(**data["options"]),
            inputs=tuple(Input(**given) for given in data["inputs"]),
            branches={each["name"]: self._code(each, "operator", where, here) for each in data["branches"]},
            default_branch=data["default_branch"],
            state=None if state is None else self._state(state, where, here),
            state_reference="" if state is None else state["model"],
            ttl=data["ttl"],
            on_timer=None if timer is None else self._code(timer, "operator", where, here),
            max_hops=data["max_hops"],
            origin=origin,
            places={path: Origin(*place) for path, place in data["places"].items()},
        )

    def _code(self, data: Mapping[str, Any], component: ComponentKind, where: str, here: bool) -> Any:
        """A step's target, a predicate or a timer's function."""
        reference = data["target"]
        if data["literal"] or not reference:
            return reference or None
        return self._loaded(Elsewhere(reference, data["fingerprint"]), component, where, here)

    def _state(self, data: Mapping[str, Any], where: str, here: bool) -> Any:
        return self._loaded(Elsewhere(data["model"], schema=data["schema"]), "operator", where, here)

    def _loaded(self, stored: Elsewhere, component: ComponentKind, where: str, here: bool) -> Any:
        if self._load is None or not here:
            return stored
        try:
            return self._load(stored.reference, component)
        except SageError as error:
            self.problems += [each.at(where) for each in getattr(error, "problems", (error,))]
            return stored


def _stage(data: Mapping[str, Any], steps: Mapping[str, Step]) -> Stage:
    return Stage(
        name=data["name"],
        steps=tuple(steps[name] for name in data["steps"]),
        execution=data["execution"],
        inputs=tuple(StageInput(**given) for given in data["inputs"]),
        outputs=tuple(StageOutput(**output) for output in data["outputs"]),
        group=data["group"],
        options=Options(**data["options"]),
        ordering=data["ordering"],
        concurrency=data["concurrency"],
        retry_topic=data["retry_topic"],
        journal_topic=data["journal_topic"],
        changelog_topic=data["changelog_topic"],
        reasons=tuple(data["reasons"]),
    )
