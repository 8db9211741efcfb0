"""What ``sage operators`` and ``sage connectors`` show: names, and options as their models describe them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sage.errors import InvalidTopology, UnknownName
from sage.spec.component import Component
from sage.spec.registry import ComponentKind, Registry

_TOPIC = {
    "source": "Records of a Kafka topic.",
    "sink": "Writes to a Kafka topic, made when missing.",
}


def listed(kinds: Sequence[ComponentKind]) -> list[dict[str, Any]]:
    """Every installed component of these kinds; one that can't be imported says why."""
    registry = Registry.installed()
    rows = []
    for kind in kinds:
        for entry in registry.entries(kind):
            try:
                summary = _summary(entry.load())
            except InvalidTopology as error:
                summary = f"cannot be loaded: {error.message}"
            rows.append(
                {
                    "name": entry.name,
                    "kind": kind,
                    "from_": entry.distribution,
                    "summary": summary,
                    "class": entry.value,
                }
            )
        if kind in _TOPIC:
            rows.append({"name": "topic", "kind": kind, "from_": "", "summary": _TOPIC[kind], "class": ""})
    return rows


def described(name: str, kinds: Sequence[ComponentKind]) -> list[dict[str, Any]]:
    """The component ``name`` in each of these kinds: its text and its options.

    Raises:
        UnknownName: none of the kinds has it.
    """
    registry = Registry.installed()
    with_it: list[ComponentKind] = [kind for kind in kinds if ":" in name or registry.has(kind, name)]
    if not with_it:
        raise _unknown(name, kinds, registry)
    found = []
    for kind in with_it:
        target = registry.load(kind, name, folder=Path.cwd())
        if isinstance(target, type) and issubclass(target, Component):
            found.append(_description(name, _kind_of(target, kind), target))
            if ":" in name:
                break
    if not found:
        raise UnknownName(f"{name} is not a component class with options")
    return found


def _unknown(name: str, kinds: Sequence[ComponentKind], registry: Registry) -> UnknownName:
    from difflib import get_close_matches

    known = sorted({one for kind in kinds for one in registry.names(kind)})
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
    return UnknownName(f"unknown {' or '.join(kinds)} {name!r}; {advice}")


def _kind_of(target: type[Component], kind: str) -> str:
    from sage.spec.component import Operator, Sink, Source

    bases = {"operator": Operator, "source": Source, "sink": Sink}
    return next((text for text, base in bases.items() if issubclass(target, base)), kind)


def _description(name: str, kind: str, target: type[Component]) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "class": f"{target.__module__}.{target.__qualname__}",
        "description": inspect.getdoc(target) or "",
        "options": options_of(target.Config),
        "schema": target.Config.model_json_schema(),
    }


def options_of(config: type[BaseModel]) -> list[dict[str, Any]]:
    """The options of a component: name, type, default (``required`` where there is none), description."""
    schema = config.model_json_schema()
    required = set(schema.get("required", ()))
    return [
        {
            "option": name,
            "type": _type(field, schema.get("$defs", {})),
            "default": "required" if name in required else _default(field.get("default")),
            "description": field.get("description", ""),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _default(value: Any) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) else repr(value)


def _type(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in field:
        return _type(definitions.get(field["$ref"].rpartition("/")[2], {}), definitions)
    if "enum" in field:
        return "|".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in field:
            kinds = [_type(one, definitions) for one in field[key]]
            return "|".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type(field.get('items', {}), definitions)}"
    return kind


def _summary(target: type[Component]) -> str:
    return (inspect.getdoc(target) or "").strip().split("\n", 1)[0]
