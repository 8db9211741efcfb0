"""Results of external calls as bytes, and back by the return annotation of the function that was called.

A result is always given back in the form that it comes back in, so that a step sees the same in its first try as
after a crash, and what can't come back is found out in the first test.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import typing
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json

from sage.errors import RecordFailure, StageStopped

_BYTES, _JSON = b"b", b"j"
_AWAITABLE = (collections.abc.Awaitable, collections.abc.Coroutine)


def _plain_adapter(annotation: Any) -> TypeAdapter[Any]:
    """Infinities and NaN are kept as they are, where the type has no rules of its own."""
    try:
        return TypeAdapter(annotation, config=ConfigDict(ser_json_inf_nan="constants"))
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)


_PLAIN: TypeAdapter[Any] = _plain_adapter(Any)


class _Adapter(Protocol):
    """What is used of pydantic's TypeAdapter."""

    def dump_json(self, result: Any, /, *, by_alias: bool, round_trip: bool, warnings: bool) -> bytes: ...
    def validate_json(self, data: bytes, /, *, by_alias: bool, by_name: bool) -> Any: ...


_ADAPTERS: weakref.WeakKeyDictionary[Any, _Adapter] = weakref.WeakKeyDictionary()


async def result_of(name: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a call gives. Raises TypeError where the function is not async: it would hold up all other records."""
    result = function(*args, **kwargs)
    if not inspect.isawaitable(result):
        raise TypeError(f"ctx.call({name!r}, ...) takes an async function; {_name(function)} is none")
    return await result


def encode_result(result: Any, function: Callable[..., Any]) -> bytes:
    """A result as it is kept: bytes as they are, anything else as JSON.

    Raises:
        RecordFailure: it would not come back as what ``function`` says that it returns.
    """
    if isinstance(result, bytes | bytearray):
        return _BYTES + result
    adapter = _adapter_of(function)
    try:
        data = adapter.dump_json(result, by_alias=False, round_trip=True, warnings=False)
        adapter.validate_json(data, by_alias=False, by_name=True)
    except (PydanticSerializationError, ValidationError, ValueError, TypeError, AttributeError) as error:
        raise RecordFailure(
            f"{_name(function)} returned a {type(result).__name__} that has no JSON form or does not come back from "
            f"it: {' '.join(str(error).split())[:200]}; annotate what it returns, or return plain JSON values"
        ) from error
    return _JSON + data


def decode_result(data: bytes, function: Callable[..., Any]) -> Any:
    """A kept result, as ``function`` says that it returns it.

    Raises:
        StageStopped: it was kept by other code, and no longer fits the annotation.
    """
    if data[:1] == _BYTES:
        return data[1:]
    try:
        return _adapter_of(function).validate_json(data[1:], by_alias=False, by_name=True)
    except ValidationError as error:
        raise StageStopped(
            f"a journaled result no longer fits what {_name(function)} returns: {error.error_count()} problems; give "
            "the call another name, and it is made again"
        ) from error


def plain_function(function: Callable[..., Any]) -> Any:
    """The function that a method, a ``partial`` or an object with ``__call__`` stands for."""
    while isinstance(function, functools.partial):
        function = function.func
    called: Any = getattr(function, "__func__", function)
    if not hasattr(called, "__code__") and hasattr(type(called).__call__, "__code__"):
        called = type(called).__call__
    return called


def _adapter_of(function: Callable[..., Any]) -> _Adapter:
    plain = plain_function(function)
    try:
        return _ADAPTERS[plain]
    except (KeyError, TypeError):
        made = _made(plain)
    try:
        _ADAPTERS[plain] = made
    except TypeError:  # a builtin, which takes no weak reference
        return made
    return made


def _made(function: Any) -> _Adapter:
    try:
        returned = typing.get_type_hints(function).get("return", Any)
    except (NameError, TypeError, AttributeError):
        return _PLAIN  # names that mean something only where the function was defined: plain JSON then
    if typing.get_origin(returned) in _AWAITABLE:  # a plain function that returns an awaitable
        returned = typing.get_args(returned)[-1]
    try:
        return _plain_adapter(returned)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError):
        # A class that pydantic knows nothing of: encoding says so if it is no JSON.
        return _ByField(returned) if dataclasses.is_dataclass(returned) and isinstance(returned, type) else _PLAIN


class _ByField:
    """A dataclass with a field that pydantic refuses, as it does a ``typing.TypedDict`` before Python 3.12."""

    def __init__(self, kind: type) -> None:
        hints = typing.get_type_hints(kind)
        self._kind = kind
        self._fields = {field.name: _of_field(hints[field.name]) for field in dataclasses.fields(kind) if field.init}

    def dump_json(self, result: Any, /, *, by_alias: bool, round_trip: bool, warnings: bool) -> bytes:
        """Its fields as a JSON object."""
        fields = {name: getattr(result, name) for name in self._fields}
        return _PLAIN.dump_json(fields, by_alias=by_alias, round_trip=round_trip, warnings=warnings)

    def validate_json(self, data: bytes, /, *, by_alias: bool, by_name: bool) -> Any:
        """The dataclass with these fields."""
        found = from_json(data)
        fields = {
            name: adapter.validate_python(found[name], by_alias=by_alias, by_name=by_name)
            for name, adapter in self._fields.items()
        }
        return self._kind(**fields)


def _of_field(annotation: Any) -> TypeAdapter[Any]:
    try:
        return _plain_adapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError):
        return _PLAIN


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(plain_function(function), "__qualname__", function))
