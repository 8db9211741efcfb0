"""What the files of a folder need: which services its topologies name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sage.errors import SageError
from sage.spec.registry import Registry
from sage.spec.variables import UnsetVariable, resolve

LOCAL = "local/"

_MANY = 200
"""More YAML files than this are somebody's data, not topologies."""


def topology_files(folder: Path) -> list[Path]:
    """The YAML files of a folder that hold ``steps``, by name; those that can't be read are left out."""
    return [path for path in _yaml_files(folder) if isinstance(found := _read(path), Mapping) and "steps" in found]


def chat_model_of(folder: Path) -> str | None:
    """The first ``local/`` chat model that a YAML file of the folder names, or ``None``.

    Files that can't be read are left out: ``sage topology validate`` is where their errors belong.
    """
    for path in _yaml_files(folder):
        for model in _models(_read(path)):
            return model
    return None


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(path for pattern in ("*.yaml", "*.yml") for path in folder.glob(pattern))[:_MANY]


def _models(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _models(inner)
    if not isinstance(value, Mapping):
        return
    operator = value.get("operator")
    # An embedding model runs inside the process that embeds: it has no server.
    if operator == "embedder":
        return
    if isinstance(operator, str) and "model" not in (value.get("config") or {}):
        yield from _default_model(operator)
    for key, inner in value.items():
        if key == "model" and isinstance(inner, str):
            model = _default_of(inner)
            if model.startswith(LOCAL):
                yield model
        elif key != "embedding":
            yield from _models(inner)


def _default_model(operator: str) -> Iterator[str]:
    """The local model that an installed operator uses when its configuration names none."""
    registry = Registry.installed()
    if not registry.has("operator", operator):
        return
    try:
        field = registry.load("operator", operator).Config.model_fields.get("model")
    except SageError:
        return
    if field is not None and str(field.default).startswith(LOCAL):
        yield str(field.default)


def _default_of(text: str) -> str:
    """``${NAME:-default}`` resolved with this process's environment; other texts as they are."""
    try:
        return resolve(text, os.environ)
    except (UnsetVariable, ValueError):
        return text


def _read(path: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError):
        return None
