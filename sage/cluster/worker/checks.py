"""Whether a deployment can run on this worker: asked before anything of it is started, and said in the status.

In this order, each only where the one before found nothing: what the topology may do here (its code, its variables, its
Kafka settings); whether its code can be imported; whether it is the code that was deployed; whether its variables are
set.
A candidate is looked at more closely: its operators are opened and closed again, which finds missing collections,
wrong dimensions, and services that don't answer.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from sage.cluster.code import changed_files, code_of, differences
from sage.cluster.deployable import contradicting_labels
from sage.cluster.deployment import Deployment
from sage.cluster.status import Check, Problem
from sage.errors import InvalidTopology, MissingVariable, SageError
from sage.plan.decoding import plan_from_json
from sage.plan.plan import Plan
from sage.runtime.runs.assembly import bind_stage
from sage.runtime.runs.world import World
from sage.spec.config import secrets_of, unset_message
from sage.spec.fields import ModelField
from sage.spec.registry import ComponentKind, Registry
from sage.spec.settings import MemoryConfig, check_kafka
from sage.spec.shape import is_component
from sage.spec.variables import names_in


class Refused(InvalidTopology):
    """What this worker was not allowed to do for a topology."""


@dataclass(frozen=True)
class Policy:
    """What topologies may do on a worker, beyond using what is installed as an entry point.

    Attributes:
        allow_code: modules, and all that is below them, whose code may be named.
        allow_env: variables that secret fields may refer to.
    """

    allow_code: tuple[str, ...] = ()
    allow_env: tuple[str, ...] = ()

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables that topologies are shown."""
        return {name: environ[name] for name in self.allow_env if name in environ}

    def load(self, reference: str, component: ComponentKind) -> Any:
        """Import what a stored plan names.

        Raises:
            Refused: it is no entry point, and not below what is allowed.
            InvalidTopology: importing fails.
        """
        registry = Registry.installed()
        if ":" not in reference or any(self._is_entry(registry, kind, reference) for kind in _KINDS):
            return registry.load(component, reference, folder=Path.cwd())
        place = reference.partition(":")[0]
        if place.endswith(".py") and Path(place).name != place:
            raise Refused(f"{reference} may not run on this worker: a file must lie in the folder it was started in")
        self._refuse_foreign(reference, place.removesuffix(".py"))
        found = registry.load(component, reference, folder=Path.cwd())
        # A module's attributes are not all its own: ``shop:os.system`` begins with one that is allowed.
        if (owner := _owner_of(found)) is not None:
            self._refuse_foreign(reference, Path(owner).stem if owner.endswith(".py") else owner)
        return found

    def _refuse_foreign(self, reference: str, module: str) -> None:
        if not any(module == allowed or module.startswith(f"{allowed}.") for allowed in self.allow_code):
            raise Refused(
                f"{reference} may not run on this worker: it is code of {module}; start the worker with --allow-code "
                f"{module.partition('.')[0]}, or register it as an entry point"
            )

    @staticmethod
    def _is_entry(registry: Registry, kind: ComponentKind, reference: str) -> bool:
        return any(entry.value == reference for entry in registry.entries(kind))


_KINDS: Final[tuple[ComponentKind, ...]] = ("operator", "source", "sink")


def _owner_of(found: Any) -> str | None:
    """The module that a function or class was made in; ``None`` for other objects, which whoever holds them made."""
    if isinstance(found, ModuleType):
        return found.__name__
    if inspect.isroutine(found) or inspect.isclass(found):
        return getattr(found, "__module__", None) or "builtins"
    return None


class Checker:
    """Looks at deployments for one worker, and keeps the plans that it could load.

    Args:
        worker: its name, for messages.
        policy: what topologies may do here.
        environ: this process's variables.
    """

    def __init__(self, worker: str, policy: Policy, environ: Mapping[str, str] | None = None) -> None:
        self._worker = worker
        self._policy = policy
        self._environ = os.environ if environ is None else environ
        self._plans: dict[tuple[str, int], tuple[Deployment, Plan]] = {}

    def plan_of(self, deployment: Deployment) -> Plan:
        """The plan with its code. Raises InvalidTopology where it may not be, or can't be, loaded."""
        key = (deployment.name, deployment.version)
        known = self._plans.get(key)
        if known is None or known[0] != deployment:  # or its number was given again
            plan = plan_from_json(deployment.plan, load=self._policy.load, elsewhere=deployment.caller)
            known = self._plans[key] = deployment, plan
        return known[1]

    def forget(self, name: str, used: frozenset[int]) -> None:
        """Let the plans of a topology's other versions go."""
        for key in [key for key in self._plans if key[0] == name and key[1] not in used]:
            del self._plans[key]

    def check(self, deployment: Deployment) -> Check:
        """What keeps a deployment from running here."""
        version = deployment.version
        try:
            plan = self.plan_of(deployment)
        except SageError as error:
            problems = tuple(getattr(error, "problems", (error,)))
            is_refused = any(isinstance(problem, Refused) for problem in problems)
            return Check.of(version, "refused" if is_refused else "unready", map(Problem.of, problems))
        refused = [
            *self._forbidden_settings(plan),
            *self._forbidden_variables(plan, deployment.caller),
            *contradicting_labels(plan, deployment.caller),
        ]
        if refused:
            return Check.of(version, "refused", map(Problem.of, refused))
        other = [f"{file} has changed since it was loaded; restart this worker" for file in changed_files(plan)]
        other = other or differences(deployment.code, code_of(plan))
        if other:
            return Check.of(version, "incompatible", map(Problem, other))
        unset = list(map(Problem.of, self._unset(plan, deployment.caller)))
        return Check.of(version, "unready" if unset else "", unset)

    def _forbidden_settings(self, plan: Plan) -> Iterator[SageError]:
        for problem in check_kafka(plan.topology.kafka):
            yield Refused(f"kafka.{'.'.join(map(str, problem.path))} {problem.message}")

    def _forbidden_variables(self, plan: Plan, caller: tuple[str, ...]) -> Iterator[SageError]:
        for variable in _variables(plan, caller):
            name = variable.name
            if name not in self._policy.allow_env:
                yield Refused(
                    f"{name} may not be read on this worker; start it with --allow-env {name}", where=variable.where
                )

    def _unset(self, plan: Plan, caller: tuple[str, ...]) -> Iterator[SageError]:
        for variable in _variables(plan, caller):
            if variable.name not in self._environ and not variable.has_default:
                yield MissingVariable(unset_message(variable.name, variable.field, self._worker), where=variable.where)


@dataclass(frozen=True, slots=True)
class _Variable:
    """One that is resolved on the worker, and where it was written."""

    where: str
    name: str
    field: ModelField
    has_default: bool


def _variables(plan: Plan, caller: tuple[str, ...]) -> Iterator[_Variable]:
    for step in plan.topology.steps:
        if step.name not in caller and is_component(step.target):
            for path, field, text in secrets_of(step.target.Config, step.config):
                place = step.where_of(".".join(("config", *map(str, path))))
                yield from (_Variable(place, name, field, ":-" in text) for name in names_in(text))
    for path, field, text in secrets_of(MemoryConfig, plan.topology.memory):
        place = ".".join((f"{plan.name} memory", *map(str, path)))
        yield from (_Variable(place, name, field, ":-" in text) for name in names_in(text))


async def open_operators(deployment: Deployment, plan: Plan, world: World) -> tuple[Problem, ...]:
    """Open each operator as an actor would, and close it: what keeps it from working here."""
    problems: list[Problem] = []
    for stage in plan.stages:
        if stage.name in deployment.caller or stage.execution in {"source", "sink"}:
            continue
        for step in bind_stage(plan, stage, world.services, world.environ):
            try:
                await step.open(1)
            except Exception as error:  # whatever it is, it would stop the stage in the same way
                where = f'{plan.name} step "{step.name}"'
                problems.append(
                    Problem.of(error.at(where)) if isinstance(error, SageError) else Problem(repr(error), where)
                )
            finally:
                await step.close()
    return tuple(problems)
