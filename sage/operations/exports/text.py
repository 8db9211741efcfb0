"""Exports as YAML text."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString


def yaml_text(documents: Sequence[Any]) -> str:
    """One or several documents; texts of several lines stand as they are read."""
    writer = YAML()
    writer.width = 4096
    writer.indent(mapping=2, sequence=4, offset=2)
    stream = StringIO()
    writer.dump_all([_plain(document) for document in documents], stream)
    return stream.getvalue()


def yaml_value(text: str) -> Any:
    """What a text of one document says."""
    return YAML(typ="safe", pure=True).load(text)


def _plain(value: Any) -> Any:
    """A copy without shared parts, which would be written as anchors."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return LiteralScalarString(value) if isinstance(value, str) and "\n" in value else value
