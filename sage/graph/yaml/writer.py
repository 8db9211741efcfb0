"""A topology as YAML that reads back the same."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML

from sage.errors import InvalidTopology, SageError
from sage.graph.topology import Step, TopicSettings, Topology
from sage.spec.config import secrets_of
from sage.spec.reference import is_reference as names_code
from sage.spec.reference import reference_of
from sage.spec.settings import MemoryConfig
from sage.spec.shape import is_component
from sage.spec.variables import escaped, is_reference


def write_topology(topology: Topology) -> str:
    """The topology as YAML text.

    Raises:
        InvalidTopology: a step's code can't be named (a lambda, a local function, a collection), or a secret is
            written out; ``problems`` has one for each.
    """
    problems: list[SageError] = []
    steps = {step.name: _step(step, problems) for step in topology.steps}
    memory_secrets = _literal_secrets(MemoryConfig, topology.memory, "memory", problems)
    if problems:
        raise InvalidTopology.of(problems)
    document: dict[str, Any] = {"version": 1, "name": topology.name, "guarantee": topology.guarantee}
    document["defaults"] = topology.defaults.as_written()
    document["topics"] = _topics(topology.topics)
    document["memory"] = _escaped(topology.memory, memory_secrets)
    document["kafka"] = dict(topology.kafka)
    document["moved"] = dict(topology.moved)
    return _dumped({key: value for key, value in document.items() if value != {}} | {"steps": steps})


def _dumped(document: Mapping[str, Any]) -> str:
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.width = 2**31 - 1  # a folded text would come back with other spaces
    yaml.indent(mapping=2, sequence=4, offset=2)
    # Equal parts are written out: an alias would tie steps together that only look alike.
    yaml.representer.ignore_aliases = lambda data: True
    stream = io.StringIO()
    yaml.dump(dict(document), stream)
    return stream.getvalue()


def _step(step: Step, problems: list[SageError]) -> dict[str, Any]:
    found: dict[str, Any] = {step.kind: _value(step, problems)}
    if step.inputs and step.kind != "union":
        inputs = [str(given) for given in step.inputs]
        found["from"] = inputs[0] if len(inputs) == 1 else inputs
    if step.kind == "route":
        found["default"] = step.default_branch
    if step.kind == "process":
        found |= _keyed(step, problems)
    if step.max_hops is not None:
        found["max_hops"] = step.max_hops
    found |= step.options.as_written()
    if step.config:
        config = step.target.Config if is_component(step.target) else None
        secrets = _literal_secrets(config, step.config, step.where, problems) if config is not None else set()
        found["config"] = _escaped(step.config, secrets)
    return found


def _keyed(step: Step, problems: list[SageError]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if step.state is not None:
        found["state"] = _named(step, step.state, step.state_reference, problems)
    if step.ttl is not None:
        found["ttl"] = step.ttl
    if step.on_timer is not None:
        found["on_timer"] = _named(step, step.on_timer, reference_of(step.on_timer), problems)
    return found


def _value(step: Step, problems: list[SageError]) -> Any:
    """What stands behind the kind key."""
    if step.kind == "union":
        return [str(given) for given in step.inputs]
    if step.kind == "route":
        return {
            branch: _named(step, predicate, reference_of(predicate), problems)
            for branch, predicate in step.branches.items()
        }
    return _named(step, step.target, step.reference, problems)


def _named(step: Step, target: Any, reference: str, problems: list[SageError]) -> str:
    if isinstance(target, str):
        if target != "topic" and names_code(target):
            problems.append(
                InvalidTopology(f"{target!r} would be read as a reference; use a function", where=step.where)
            )
        return target
    if not reference:
        name = getattr(target, "__qualname__", type(target).__name__)
        shown = (
            "a lambda" if name.endswith("<lambda>") else f"{name} of {getattr(target, '__module__', None) or 'here'}"
        )
        problems.append(InvalidTopology(f"YAML cannot name {shown}. Move it to a module.", where=step.where))
    return reference


def _literal_secrets(
    model: Any, config: Mapping[str, Any], where: str, problems: list[SageError]
) -> set[tuple[str | int, ...]]:
    """The paths of the secrets, which are written as they are; literal ones are problems."""
    paths = set()
    for path, _, text in secrets_of(model, config):
        paths.add(path)
        if not is_reference(text):
            option = ".".join(map(str, path))
            problems.append(InvalidTopology(f"{option} is a secret written out; write ${{NAME}} instead", where=where))
    return paths


def _escaped(value: Any, secrets: set[tuple[str | int, ...]], path: tuple[str | int, ...] = ()) -> Any:
    """A copy in which ``${`` of plain texts is escaped; that of secrets stays a reference."""
    if isinstance(value, str):
        return value if path in secrets else escaped(value)
    if isinstance(value, Mapping):
        return {key: _escaped(inner, secrets, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(inner, secrets, (*path, index)) for index, inner in enumerate(value)]
    return value


def _topics(settings: TopicSettings) -> dict[str, Any]:
    default = TopicSettings()
    found: dict[str, Any] = {}
    if settings.replication_factor != default.replication_factor:
        found["replication_factor"] = settings.replication_factor
    if settings.retention is not None:
        found["retention"] = settings.retention
    return found
