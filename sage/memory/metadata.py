"""Metadata of memories: what may be in it, and the types of declared fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from sage.errors import MemoryFailure

TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}
"""The types that a field can be declared with, by name."""


def type_name(declared: type | str) -> str:
    """The name of a type as stored in the manifest.

    Raises:
        MemoryFailure: not one of the types that JSON has.
    """
    name = declared if isinstance(declared, str) else getattr(declared, "__name__", str(declared))
    if name not in TYPES:
        raise MemoryFailure(f"metadata type {name!r} is unknown; use one of {', '.join(TYPES)}")
    return name


def checked(metadata: Mapping[str, Any] | None, fields: Mapping[str, str], *, collection: str) -> dict[str, Any]:
    """A copy of the metadata as it will come back from the store.

    Declared fields may be missing or null; others may hold any JSON.

    Raises:
        MemoryFailure: a declared field has another type, or a value is not JSON.
    """
    if metadata is None:
        return {}
    for name, value in metadata.items():
        declared = fields.get(name)
        if declared is not None and value is not None and not _fits(value, declared):
            raise MemoryFailure(
                f"collection {collection!r}: metadata field {name!r} is declared {declared}; "
                f"found {type(value).__name__} {_short(value)}"
            )
    try:
        copied: dict[str, Any] = orjson.loads(orjson.dumps(dict(metadata)))
    except (orjson.JSONEncodeError, orjson.JSONDecodeError) as error:
        raise MemoryFailure(f"collection {collection!r}: the metadata is not JSON: {error}") from error
    return copied


def _fits(value: Any, declared: str) -> bool:
    if declared == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if declared == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if declared == "list":
        return isinstance(value, list | tuple)
    return isinstance(value, TYPES[declared])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
