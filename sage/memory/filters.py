"""What a filter on metadata is: a small tree, evaluated in Python or written as Milvus' filter text.

The text form is parsed by ``filter_text``. A comparison, negated or not, never holds for a record that
lacks the field; ``exists`` asks for that. Milvus versions disagree there, so the written form says it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

Value = str | int | float | bool
Comparison = Literal["==", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Field:
    """A metadata field, or a field inside it."""

    path: tuple[str, ...]

    @property
    def milvus(self) -> str:
        """``metadata["a"]["b"]``."""
        return "metadata" + "".join(f"[{_literal(name)}]" for name in self.path)

    def of(self, metadata: Mapping[str, Any]) -> Any:
        """The field's value; ``None`` where it is missing."""
        value: Any = metadata
        for name in self.path:
            if not isinstance(value, Mapping):
                return None
            value = value.get(name)
        return value


@dataclass(frozen=True, slots=True)
class Compare:
    """``field == value`` and its five sisters."""

    field: Field
    operator: Comparison
    value: Value


@dataclass(frozen=True, slots=True)
class OneOf:
    """``field in [..]`` and ``field not in [..]``."""

    field: Field
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Like:
    """``field like "pre%"``; ``%`` stands for any text."""

    field: Field
    pattern: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Contains:
    """``contains(field, value)``: the field is a list that holds the value."""

    field: Field
    value: Value
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Exists:
    """``exists field``: the field is there and not null."""

    field: Field
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Junction:
    """All of the parts, or any of them. Without parts: everything (and), nothing (or)."""

    operator: Literal["and", "or"]
    parts: tuple[Filter, ...]


Filter = Compare | OneOf | Like | Contains | Exists | Junction

_OPPOSITE: dict[Comparison, Comparison] = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def negated(tree: Filter) -> Filter:
    """The opposite, with the negation pushed down to the comparisons."""
    match tree:
        case Compare(field, operator, value):
            return Compare(field, _OPPOSITE[operator], value)
        case OneOf(field, values, was):
            return OneOf(field, values, not was)
        case Like(field, pattern, was):
            return Like(field, pattern, not was)
        case Contains(field, value, was):
            return Contains(field, value, not was)
        case Exists(field, was):
            return Exists(field, not was)
        case Junction(operator, parts):
            other: Literal["and", "or"] = "or" if operator == "and" else "and"
            return Junction(other, tuple(negated(part) for part in parts))


def matches(tree: Filter, metadata: Mapping[str, Any]) -> bool:
    """Whether a record with this metadata passes."""
    if isinstance(tree, Junction):
        outcomes = (matches(part, metadata) for part in tree.parts)
        return all(outcomes) if tree.operator == "and" else any(outcomes)
    found = tree.field.of(metadata)
    if isinstance(tree, Exists):
        return (found is not None) != tree.negated
    if found is None:
        return False
    match tree:
        case Compare(_, operator, value):
            return _compare(found, operator, value)
        case OneOf(_, values, negated):
            return any(_compare(found, "==", value) for value in values) != negated
        case Like(_, pattern, negated):
            return (isinstance(found, str) and _pattern(pattern).fullmatch(found) is not None) != negated
        case Contains(_, value, negated):
            held = isinstance(found, Sequence) and not isinstance(found, str)
            return (held and any(_compare(one, "==", value) for one in found)) != negated


def milvus_text(tree: Filter) -> str:
    """The tree in the part of Milvus' filter language that its servers and milvus-lite share."""
    match tree:
        case Junction(operator, parts):
            if not parts:
                return 'id != ""' if operator == "and" else 'id == ""'
            return "(" + f" {operator} ".join(milvus_text(part) for part in parts) + ")"
        case Exists(field, negated):
            return f"(not (exists {field.milvus}))" if negated else f"(exists {field.milvus})"
        case Compare(field, "!=", value):
            return _present(field, f"not ({field.milvus} == {_literal(value)})")
        case Compare(field, operator, value):
            return f"({field.milvus} {operator} {_literal(value)})"
        case OneOf(field, values, negated):
            # milvus-lite has `in` for plain columns only.
            parts_text = " or ".join(f"{field.milvus} == {_literal(value)}" for value in values) or 'id == ""'
            return _present(field, f"not ({parts_text})") if negated else f"({parts_text})"
        case Like(field, pattern, negated):
            text = f"{field.milvus} like {_literal(pattern)}"
            return _present(field, f"not ({text})") if negated else f"({text})"
        case Contains(field, value, negated):
            text = f"json_contains({field.milvus}, {_literal(value)})"
            return _present(field, f"not ({text})") if negated else f"({text})"


def _present(field: Field, text: str) -> str:
    # Parentheses: to a Milvus server `exists a and b` is `exists (a and b)`.
    return f"((exists {field.milvus}) and {text})"


def _literal(value: Value) -> str:
    """A value as Milvus reads it: JSON, but for the escapes, which it takes as C does."""
    if isinstance(value, str):
        return orjson.dumps(value).decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _compare(found: Any, operator: Comparison, value: Value) -> bool:
    """As Milvus compares: numbers with numbers, texts with texts, truth values with truth values."""
    same_kind = (
        isinstance(found, bool) == isinstance(value, bool)
        and isinstance(found, str) == isinstance(value, str)
        and isinstance(found, str | int | float)
    )
    if not same_kind:
        return operator == "!="
    left: Any = found  # of the value's own kind, as was just seen; no type checker follows that
    match operator:
        case "==":
            return bool(found == value)
        case "!=":
            return bool(found != value)
        case "<":
            return bool(left < value)
        case "<=":
            return bool(left <= value)
        case ">":
            return bool(left > value)
        case ">=":
            return bool(left >= value)


def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in pattern.split("%")), re.DOTALL)
