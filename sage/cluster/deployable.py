"""What keeps a plan from being deployed: code that workers can't import, secrets that are written out, names that were
made up by counting, and labels of sources that contradict each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from sage.errors import InvalidTopology, NotImportable, SageError
from sage.graph.topology import Step
from sage.model.secrets import has_userinfo
from sage.plan.encoding import Elsewhere
from sage.plan.plan import Plan
from sage.spec.config import secrets_of
from sage.spec.reference import reference_of
from sage.spec.settings import MemoryConfig
from sage.spec.shape import is_component
from sage.spec.variables import is_reference


def refuse_undeployable(plan: Plan, caller: Collection[str] = ()) -> None:
    """Raise for a plan that no worker could run, or that would put a secret into the control topic.

    Args:
        plan: as compiled here.
        caller: steps that will run in this process: their code need not be importable elsewhere.

    Raises:
        NotImportable: a step's code can't be imported by another process.
        InvalidTopology: a secret is written out, a step has a number for a name, or no worker can have the labels of
            all sources; with ``problems`` where there are several.
    """
    problems: list[SageError] = []
    for step in plan.topology.steps:
        if step.name not in caller:
            problems += _not_importable(step)
        if step.numbered:
            problems.append(_counted(step))
        if is_component(step.target):
            problems += _secrets(step.target.Config, step.config, step.where)
    problems += _secrets(MemoryConfig, plan.topology.memory, f"{plan.name} memory")
    problems += contradicting_labels(plan, caller)
    if problems:
        raise InvalidTopology.of(problems)


def contradicting_labels(plan: Plan, caller: Collection[str] = ()) -> Iterator[SageError]:
    """Labels of a source that no worker can have together with another source's.

    The sources of a topology are one unit: one group shares out their tasks, whichever source a task is of. So each
    worker that hosts them must have the labels of all, or a source would run where its files are not.
    """
    first: dict[str, tuple[str, str]] = {}
    for stage in plan.stages:
        if stage.execution != "source" or stage.name in caller:
            continue
        for label, value in (stage.options.labels or {}).items():
            other, wanted = first.setdefault(label, (stage.name, value))
            if value != wanted:
                yield InvalidTopology(
                    f"source {stage.name!r} wants workers with the label {label}={value}, and source {other!r} those "
                    f"with {label}={wanted}; the sources of a topology share their workers. Give one of the two a "
                    "topology of its own that writes to a topic, and read that topic here.",
                    where=stage.steps[0].where_of("labels"),
                )


def caller_steps(plan: Plan) -> tuple[str, ...]:
    """The steps that belong to whoever describes the topology: its files, its terminal, its lists."""
    return tuple(step.name for step in plan.topology.steps if is_component(step.target) and step.target.local)


def _not_importable(step: Step) -> Iterator[SageError]:
    named = [(step.target, step.reference or reference_of(step.target)), (step.state, step.state_reference)]
    named += [(code, reference_of(code)) for code in (*step.branches.values(), step.on_timer)]
    for code, reference in named:
        if code is None or isinstance(code, str | Elsewhere) or reference:
            continue
        yield NotImportable(f"workers cannot import {_shown(code)}. Move it to a module.", where=step.where)


def _counted(step: Step) -> SageError:
    return InvalidTopology(
        f"the name {step.name!r} was made up by counting: the next version's {step.name!r} may be another step, which "
        f'would get this one\'s group, topics and state. Name it: name="..."',
        where=step.where,
    )


def _shown(code: Any) -> str:
    name = getattr(code, "__qualname__", None) or type(code).__name__
    module = getattr(code, "__module__", None) or "here"
    if name.endswith("<lambda>"):
        return f"a lambda from {module}"
    if "<locals>" in name:
        return f"{name.rpartition('.')[2]}, which is made inside a function of {module}"
    return f"{name} from {module}"


def _secrets(model: type[BaseModel], config: Mapping[str, Any], where: str) -> Iterator[SageError]:
    for path, _, text in secrets_of(model, config):
        if not is_reference(text):
            option = ".".join(map(str, path))
            yield InvalidTopology(
                f"{option} is a secret written out; write ${{NAME}} and set NAME on the workers", where=where
            )
    for option in _addresses_with_users(config):
        yield InvalidTopology(
            f"{option} is an address with a user or a password in it, which everybody who reads the cluster's topics "
            "would see; take it out, and give it in a secret field (api_key, token) as ${NAME}",
            where=where,
        )


def _addresses_with_users(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, str) and has_userinfo(value):
        yield path
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _addresses_with_users(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _addresses_with_users(inner, f"{path}.{index}" if path else str(index))
