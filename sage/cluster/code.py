"""Which code a plan runs: what is compared between the machine that deployed and a worker."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import sys
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from sage.cluster.source_files import source_files
from sage.graph.topology import Step
from sage.plan.encoding import Elsewhere, fingerprint
from sage.plan.plan import Plan

_DIGITS = 16
_STEP = "step:"


def code_of(plan: Plan) -> dict[str, str]:
    """The code of a plan: ``package.module:name`` -> digest, distribution -> version, and ``step:<name>`` -> digest
    of all that the step calls.

    A digest is of the whole module that defines a function or class, and of what it imports of its own project; the
    versions stand for the rest. Code that was not imported here (``Elsewhere``) is left out.
    """
    found: dict[str, str] = {}
    for step in plan.topology.steps:
        own: dict[str, str] = {}
        for target in targets(step):
            own |= _code(target)
        if own:
            found[f"{_STEP}{step.name}"] = hashlib.sha256(repr(sorted(own.items())).encode()).hexdigest()[:_DIGITS]
        found |= own
    return dict(sorted(found.items()))


def targets(step: Step) -> Iterator[Any]:
    """Everything that a step calls or makes: its own code, predicates, its state's model, what timers call."""
    for target in (step.target, *step.branches.values(), step.state, step.on_timer):
        if target is not None and not isinstance(target, str | Elsewhere):
            yield target


def differences(deployed: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """One line for each function, class or distribution that is not the same on this machine as where it was deployed.

    What only one side names doesn't count: code that is missing here has failed to be imported before.
    """
    return [
        f"{name} differs: {here[name]} here, {digest} deployed"
        for name, digest in deployed.items()
        if not name.startswith(_STEP) and name in here and here[name] != digest
    ]


def step_digest(code: Mapping[str, str], step: str) -> str:
    """Of a deployment's ``code``: what changes when a step's code does; empty for a step without code."""
    return code.get(f"{_STEP}{step}", "")


def _code(target: Any) -> dict[str, str]:
    while isinstance(target, functools.partial):
        target = target.func
    owner = target if hasattr(target, "__qualname__") else type(target)
    module = getattr(owner, "__module__", None) or "builtins"
    found = {f"{module}:{owner.__qualname__}": _module_digest(module) or fingerprint(target)}
    for name in _distributions().get(module.partition(".")[0], ()):
        found[name] = importlib.metadata.version(name)
    return found


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


_sources: weakref.WeakKeyDictionary[ModuleType, dict[Path, str]] = weakref.WeakKeyDictionary()


def _loaded_sources(module: ModuleType) -> dict[Path, str]:
    """The files that a module's behaviour hangs on -> digest, as they were when they were first looked at.

    Taken once for each module: when a file changes later, this process goes on running what it imported, and must not
    be taken for one that runs the new code.
    """
    if module not in _sources:
        _sources[module] = {file: _file_digest(file) for _, file in sorted(source_files(module).items())}
    return _sources[module]


def _module_digest(name: str) -> str:
    """Of the source that a module was imported from; empty where it has none."""
    module = sys.modules.get(name)
    sources = {} if module is None else _loaded_sources(module)
    if not any(sources.values()):
        return ""
    return hashlib.sha256("".join(sources.values()).encode()).hexdigest()[:_DIGITS]


def changed_files(plan: Plan) -> list[Path]:
    """The files of a plan's code that say something else now than when they were loaded."""
    modules = {getattr(target, "__module__", None) for step in plan.topology.steps for target in targets(step)}
    loaded = [sys.modules[name] for name in modules if name in sys.modules]
    return sorted(
        {file for module in loaded for file, digest in _loaded_sources(module).items() if _file_digest(file) != digest}
    )


def _file_digest(file: Path) -> str:
    """Of what a file says now; empty where it can't be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:_DIGITS]
    except OSError:
        return ""
