"""What a call asks, as a short text: the same in every process, and another for anything else that is asked.

Not JSON: there ``1`` and ``"1"`` are one key of an object, and a NaN is a null. Each value is written with its kind
and its length, so that no two values look alike.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import hashlib
import math
import pathlib
import struct
import types
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

from sage.errors import RecordFailure
from sage.spec.call_results import plain_function

NOT_ASKED = frozenset({"idempotency_key", "on_delta"})
"""Fields and arguments that say how a call is made and not what is asked."""

_BY_TEXT = (
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID, pathlib.PurePath,
    complex,
)  # fmt: skip


def arguments_hash(
    arguments: Sequence[Any], keywords: Mapping[str, Any], function: Callable[..., Any] | None = None
) -> str:
    """The same for equal arguments, in every process.

    Args:
        arguments: by position.
        keywords: by name; those in ``NOT_ASKED`` don't count.
        function: what is called; what it brings along counts as well: the arguments of a ``partial``, the values that
            a nested function or lambda has from around it, defaults.

    Raises:
        RecordFailure: an argument is nothing that could be compared in another process, such as a client.
    """
    asked = {name: value for name, value in keywords.items() if name not in NOT_ASKED}
    try:
        data = canonical(arguments) + canonical(asked) + _brought(function)
    except RecursionError as error:
        raise RecordFailure("an argument of a journaled call holds itself") from error
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def canonical(value: Any) -> bytes:
    """A value with its kind and length; two values have the same bytes only where they are equal.

    Lists and tuples are alike, as they are in JSON. Raises RecordFailure.
    """
    form = _PLAIN_FORMS.get(type(value))
    return form(value) if form is not None else _other(value)


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"s%d:" % len(data) + data


def _bytes(value: bytes | bytearray | memoryview) -> bytes:
    data = bytes(value)
    return b"b%d:" % len(data) + data


def _items(value: Iterable[Any]) -> bytes:
    return b"[" + b"".join(map(canonical, value)) + b"]"


def _mapping(value: Mapping[Any, Any]) -> bytes:
    return b"{" + b"".join(sorted(canonical(key) + canonical(each) for key, each in value.items())) + b"}"


_PLAIN_FORMS: Mapping[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"n",
    bool: lambda value: b"t" if value else b"f",
    int: lambda value: b"i%d;" % value,
    float: lambda value: b"d" + struct.pack(">d", math.nan if math.isnan(value) else value),
    str: _text,
    bytes: _bytes,
    list: _items,
    tuple: _items,
    dict: _mapping,
}


def _other(value: Any) -> bytes:
    named = _text(_name(type(value)))
    if isinstance(value, enum.Enum):
        return b"e" + named + canonical(value.value)
    if isinstance(value, SecretStr | SecretBytes):
        return b"*"  # whose key it is does not change what is asked, and no trace of a secret is written
    if isinstance(value, BaseModel):
        return b"m" + named + _mapping({name: each for name, each in value if name not in NOT_ASKED})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [each.name for each in dataclasses.fields(value) if each.name not in NOT_ASKED]
        return b"m" + named + _mapping({name: getattr(value, name) for name in fields})
    if isinstance(value, _BY_TEXT):
        text = value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)
        return b"x" + named + _text(text)
    if isinstance(value, types.FunctionType | type) and "<" not in value.__qualname__:
        return b"c" + _text(_name(value))
    return _container(value)


def _container(value: Any) -> bytes:
    if isinstance(value, str | int | float):  # subclasses, such as a str that has methods of its own
        plain = next(kind for kind in (str, int, float) if isinstance(value, kind))
        return canonical(plain(value))
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, Set):
        return b"(" + b"".join(sorted(map(canonical, value))) + b")"
    if isinstance(value, bytearray | memoryview):
        return _bytes(value)
    if isinstance(value, Sequence):
        return _items(value)
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):  # numpy, without importing it
        return b"a" + _text(str(value.dtype)) + _items(value.shape) + _bytes(value.tobytes())
    raise RecordFailure(
        f"an argument of a journaled call is a {_name(type(value))}, which has no JSON form: give the call what "
        "decides its answer (names, texts, numbers), and let its function hold clients and other objects"
    )


def _name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _brought(function: Callable[..., Any] | None) -> bytes:
    """What a function has besides its arguments, as far as it can be compared."""
    found: list[bytes] = []
    while isinstance(function, functools.partial):
        found.append(canonical(function.args) + canonical(dict(function.keywords)))
        function = function.func
    plain = None if function is None else plain_function(function)
    for cell in getattr(plain, "__closure__", None) or ():
        found += _if_comparable(cell)
    for defaults in (getattr(plain, "__defaults__", None), getattr(plain, "__kwdefaults__", None)):
        found += [] if not defaults else _if_comparable(types.CellType(defaults))
    return b"".join(found)


def _if_comparable(cell: types.CellType) -> list[bytes]:
    """A value around a function; clients, contexts and the like are left out."""
    try:
        return [canonical(cell.cell_contents)]
    except (ValueError, RecordFailure):  # nothing is in it yet, or nothing to compare
        return []
