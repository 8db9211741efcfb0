"""JSON Schema of components' configurations: documentation, completion in editors, forms."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from sage.spec.component import Component
from sage.spec.fields import fields_of

VARIABLE = {"type": "string", "pattern": r"\$\{"}
"""What may stand for any value: a text with a variable in it."""


def component_schema(component: type[Component], *, definitions: str = "#/$defs/") -> dict[str, Any]:
    """The schema of a component's ``config``; models inside it are found under ``definitions``."""
    return model_schema(component.Config, definitions=definitions)


def model_schema(model: type[BaseModel], *, definitions: str = "#/$defs/") -> dict[str, Any]:
    """The schema of a model of settings as YAML takes it: own names, variables allowed, nothing unknown."""
    schema = model.model_json_schema(by_alias=False, ref_template=definitions + "{model}")
    properties: dict[str, Any] = schema.get("properties", {})
    for name, field in fields_of(model).items():
        written = properties.get(name)
        if written is None:
            continue
        if field.secret:
            written["secret"] = True
            written.pop("default", None)
        elif not _takes_text(written):
            properties[name] = _or_variable(written)
    if model.model_config.get("extra") != "allow":
        schema["additionalProperties"] = False
    return schema


def _takes_text(schema: dict[str, Any]) -> bool:
    if schema.get("type") == "string":
        return not ({"enum", "const", "pattern", "format"} & schema.keys())
    return any(_takes_text(choice) for choice in schema.get("anyOf", ())) or not schema.keys() - {
        "title",
        "default",
        "description",
    }


def _or_variable(schema: dict[str, Any]) -> dict[str, Any]:
    outer: dict[str, Any] = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in outer}
    choices = inner["anyOf"] if set(inner) == {"anyOf"} else [inner]
    return {"anyOf": [*choices, VARIABLE], **outer}
