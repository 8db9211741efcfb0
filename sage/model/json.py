"""JSON values as Python sees them."""

from __future__ import annotations

from typing import TypeAlias, Union

Json: TypeAlias = Union[None, bool, int, float, str, list["Json"], dict[str, "Json"]]  # noqa: UP007 - recursive
"""A JSON value: what a decoded record is, and what a source's position must be."""
