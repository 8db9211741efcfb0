"""Values to bytes and back: once per stage, and only where an operator looks at the value."""

from __future__ import annotations

import dataclasses
import types
from collections import abc, deque
from collections.abc import Callable
from types import CoroutineType
from typing import Any, Union, get_args, get_origin

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from sage.errors import DecodeFailure, RecordFailure
from sage.model.record import Headers

BYTES_MARK = ("sage.format", b"bytes")
"""Last header of a record on a JSON edge whose value is plain bytes."""


def is_marked(headers: Headers | None) -> bool:
    """Whether a record's value is plain bytes whatever its topic holds."""
    return bool(headers) and headers[-1] == BYTES_MARK  # type: ignore[index]  # not None where it is true


Decode = Callable[[bytes], Any]


def decoder(format: str, wanted: Any = None) -> Decode:
    """A function from a record's bytes to what the first step of a stage expects.

    Args:
        format: ``json``, ``str`` or ``bytes``.
        wanted: the receiver's annotation; a pydantic model or dataclass is validated, plain JSON types are not.
    """
    if format == "bytes":
        return bytes
    if format == "str":
        return _decode_text
    adapter = _adapter(wanted)
    return _decode_json if adapter is None else _typed_decoder(adapter)


def _decode_json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DecodeFailure(f"not JSON: {error.msg} at byte {error.pos}") from error


def _decode_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DecodeFailure(f"not UTF-8: byte {error.start}") from error


def _typed_decoder(adapter: TypeAdapter[Any]) -> Decode:
    def decode(data: bytes) -> Any:
        try:
            # Our own edges hold a model's fields by their names, other programs' topics perhaps by their aliases.
            return adapter.validate_python(_decode_json(data), by_alias=True, by_name=True)
        except ValidationError as error:
            raise DecodeFailure(f"not what the step expects: {_first_problem(error)}") from error

    return decode


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def encode(value: Any, format: str = "json") -> bytes | None:
    """A value as its topic carries it: JSON, text, or bytes as they are; ``None`` is Kafka's null.

    Raises:
        RecordFailure: the value has no JSON form, or is not what a topic of text or bytes holds.
    """
    if value is None or type(value) is bytes:
        return value
    if format == "str" and isinstance(value, str):
        return value.encode()
    if format != "json":
        holds = "text" if format == "str" else "bytes"
        raise RecordFailure(f"the output is a {type(value).__name__}, and its topic holds {holds}, by its format")
    try:
        return orjson.dumps(value, default=json_default)
    except TypeError as error:
        if type(value) is CoroutineType:
            raise unawaited(value, "the step") from error
        raise RecordFailure(f"the output {type(value).__name__} has no JSON form: {error}") from error


def unawaited(result: CoroutineType[Any, Any, Any], name: str) -> RecordFailure:
    """The failure of a record whose code gave a promise in place of a value: as a condition it would always hold."""
    result.close()
    return RecordFailure(
        f"{name} gave a coroutine, which nothing awaits; write the step with `async def`, which a lambda hides"
    )


def json_default(value: Any) -> Any:
    """The JSON form of what orjson does not know. Raises TypeError."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, bytes | bytearray):
        raise TypeError("bytes inside a JSON value; give them alone, or as text")
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


PLAIN = frozenset({dict, list, str, int, float, bool, type(None), bytes})
"""Types of values that a fused neighbour gets as they are, since it would get the same over a topic."""


def takes_plain(wanted: Any) -> bool:
    """Whether a step with this annotation takes JSON values as they are."""
    return _adapter(wanted) is None


def handed_over(value: Any, wanted: Any) -> Any:
    """What the next fused step gets: the value as it would arrive over an edge (fusion changes nothing)."""
    if type(value) in PLAIN and takes_plain(wanted):
        return value
    data = encode(value)
    if data is None or type(value) is bytes:
        return value
    return decoder("json", wanted)(data)


_ADAPTERS: dict[Any, TypeAdapter[Any] | None] = {}


def _adapter(wanted: Any) -> TypeAdapter[Any] | None:
    """A validator for annotations that name a model; ``None`` where JSON is already right."""
    try:
        return _ADAPTERS[wanted]
    except KeyError:
        made = TypeAdapter(wanted) if names_a_model(wanted) else None
        _ADAPTERS[wanted] = made
        return made
    except TypeError:  # an unhashable annotation
        return TypeAdapter(wanted) if names_a_model(wanted) else None


_MADE_OF_PARTS = frozenset(
    {
        Union, types.UnionType, list, dict, tuple, set, frozenset, deque,
        abc.Sequence, abc.MutableSequence, abc.Mapping, abc.MutableMapping, abc.Set,
    }
)  # fmt: skip
"""Annotations whose parts are looked at; not Iterable, which is checked only while it is read, in the user's code."""


def names_a_model(wanted: Any) -> bool:
    """Whether an annotation asks for more than plain JSON."""
    if isinstance(wanted, type) and not isinstance(wanted, types.GenericAlias):
        return issubclass(wanted, BaseModel) or dataclasses.is_dataclass(wanted)
    if get_origin(wanted) in _MADE_OF_PARTS:
        return any(names_a_model(part) for part in get_args(wanted))
    return False
