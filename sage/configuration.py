"""A program's own configuration file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sage.errors import InvalidTopology, MissingVariable, NotFound
from sage.spec.variables import resolve


def load_config(path: str | Path, *, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A YAML or JSON file as a dictionary, ``${VAR}`` and ``${VAR:-default}`` resolved in its texts.

    Raises:
        NotFound: there is no such file.
        InvalidTopology: it is not YAML, or not a mapping.
        MissingVariable: a variable without a default is not set.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"no file {file} in {Path.cwd()}; `sage init` writes one") from error
    except UnicodeDecodeError as error:
        raise InvalidTopology(f"not UTF-8: byte {error.start}", where=str(file)) from error
    try:
        loaded = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(file)
        raise InvalidTopology(f"not YAML: {getattr(error, 'problem', error)}", where=place) from error
    if not isinstance(loaded, dict):
        raise InvalidTopology(f"a {type(loaded).__name__}, not a mapping of names to settings", where=str(file))
    variables = os.environ if environ is None else environ
    resolved: dict[str, Any] = _resolved(loaded, variables, str(file))
    return resolved


def _resolved(value: Any, environ: Mapping[str, str], where: str) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(part, environ, f"{where} {key}") for key, part in value.items()}
    if isinstance(value, list):
        return [_resolved(part, environ, where) for part in value]
    if not isinstance(value, str):
        return value
    try:
        return resolve(value, environ)
    except MissingVariable as error:
        raise error.at(where) from error
