"""The filter language: Milvus' own syntax over the names of metadata fields.

::

    source == "leave.md" and year >= 2024
    lang in ["en", "zh"] or not (author.name like "Ann%")
    contains(tags, "travel") and exists reviewed

A field is a name, a dotted path, or ``metadata["any name"]``. ``json_contains`` and ``array_contains`` are
other names of ``contains``; ``field is null`` and ``field is not null`` of ``exists``; ``&&``, ``||`` and ``!``
of ``and``, ``or`` and ``not``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from sage.errors import MemoryFailure
from sage.memory.filters import Compare, Contains, Exists, Field, Filter, Junction, Like, OneOf, Value, negated

FilterLike = str | Mapping[str, Any]
"""A filter as users write it: text, or a mapping of fields to the value (or list of values) they must have."""

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)
    | (?P<symbol>==|!=|<=|>=|&&|\|\||[<>!()\[\],])
    )""",
    re.VERBOSE,
)
_SAME = {"&&": "and", "||": "or", "!": "not"}
_WORDS = frozenset({"and", "or", "not", "in", "like", "exists", "is", "null", "true", "false"})
_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
_CONTAINS = frozenset({"contains", "json_contains", "array_contains"})


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


def as_text(written: FilterLike | None) -> str | None:
    """The filter as text; a mapping becomes equalities, a list of values ``in``.

    Raises:
        MemoryFailure: it can't be read as a filter.
    """
    if written is None or isinstance(written, str):
        if written is not None:
            parse(written)
        return written or None
    parts = [_equality(name, value) for name, value in written.items()]
    return " and ".join(parts) or None


def parse(text: str) -> Filter:
    """The filter's tree.

    Raises:
        MemoryFailure: not in the language; with the column and what would fit there.
    """
    return _parse(text)


@lru_cache(maxsize=256)
def _parse(text: str) -> Filter:
    return _Parser(text).whole()


def _equality(name: str, value: Any) -> str:
    field = f"metadata[{orjson.dumps(name).decode()}]"
    if value is None:
        return f"not exists {field}"
    if isinstance(value, str | int | float):
        return f"{field} == {orjson.dumps(value).decode()}"
    if isinstance(value, Sequence) and all(isinstance(one, str | int | float) for one in value):
        return f"{field} in {orjson.dumps(list(value)).decode()}"
    raise MemoryFailure(
        f"filter: {name!r} is compared with a {type(value).__name__}; "
        "give a text, number, truth value, or a list of these"
    )


class _Parser:
    """Recursive descent: or, and, not, comparison."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._at = 0

    def whole(self) -> Filter:
        if not self._tokens:
            return Junction("and", ())
        tree = self._any()
        if self._at < len(self._tokens):
            raise self._fault("expected 'and', 'or' or the end")
        return tree

    def _split(self) -> list[_Token]:
        tokens, position = [], 0
        text = self._text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                rest = text[position:].lstrip()
                raise self._fault_at(len(text) - len(rest), f"cannot read {rest[:12]!r}")
            kind = str(match.lastgroup)
            word = match[kind]
            if kind == "name" and word.lower() in _WORDS:
                kind, word = "symbol", word.lower()
            tokens.append(_Token(kind, _SAME.get(word, word), match.start(kind)))
            position = match.end()
        return tokens

    def _any(self) -> Filter:
        parts = [self._all()]
        while self._took("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Junction("or", tuple(parts))

    def _all(self) -> Filter:
        parts = [self._one()]
        while self._took("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Junction("and", tuple(parts))

    def _one(self) -> Filter:
        if self._took("not"):
            return negated(self._one())
        if self._took("("):
            tree = self._any()
            self._need(")")
            return tree
        if self._took("exists"):
            return Exists(self._field())
        token = self._peek()
        if token is not None and token.kind == "name" and token.text.lower() in _CONTAINS and self._opens(1):
            return self._contains()
        return self._comparison(self._field())

    def _contains(self) -> Filter:
        self._at += 2
        field = self._field()
        self._need(",")
        value = self._value()
        self._need(")")
        return Contains(field, value)

    def _comparison(self, field: Field) -> Filter:
        token = self._peek()
        if token is not None and token.kind == "symbol" and token.text in _COMPARISONS:
            self._at += 1
            return Compare(field, token.text, self._value())  # type: ignore[arg-type]
        if self._took("is"):
            present = self._took("not")
            self._need("null")
            return Exists(field, negated=not present)
        negative = self._took("not")
        if self._took("in"):
            return OneOf(field, self._values(), negative)
        if self._took("like"):
            pattern = self._value()
            if not isinstance(pattern, str):
                raise self._fault("'like' needs a text", back=1)
            return Like(field, pattern, negative)
        raise self._fault("expected a comparison such as ==, <, in or like")

    def _field(self) -> Field:
        token = self._next("a metadata field")
        if token.kind != "name":
            raise self._fault("expected a metadata field", back=1)
        if not self._opens(0, "["):
            return Field(tuple(token.text.split(".")))
        path = [] if token.text == "metadata" else token.text.split(".")
        while self._took("["):
            key = self._value()
            if not isinstance(key, str):
                raise self._fault("expected a field's name in quotes", back=1)
            path.append(key)
            self._need("]")
        return Field(tuple(path))

    def _values(self) -> tuple[Value, ...]:
        self._need("[")
        values: list[Value] = []
        while not self._took("]"):
            if values:
                self._need(",")
            values.append(self._value())
        return tuple(values)

    def _value(self) -> Value:
        token = self._next("a value")
        if token.kind == "number":
            return int(token.text) if token.text.lstrip("-").isdecimal() else float(token.text)
        if token.kind == "string":
            return _unquoted(token.text)
        if token.text in {"true", "false"}:
            return token.text == "true"
        raise self._fault("expected a text in quotes, a number, true or false", back=1)

    def _peek(self, ahead: int = 0) -> _Token | None:
        place = self._at + ahead
        return self._tokens[place] if place < len(self._tokens) else None

    def _opens(self, ahead: int, symbol: str = "(") -> bool:
        token = self._peek(ahead)
        return token is not None and token.kind == "symbol" and token.text == symbol

    def _took(self, symbol: str) -> bool:
        if self._opens(0, symbol):
            self._at += 1
            return True
        return False

    def _need(self, symbol: str) -> None:
        if not self._took(symbol):
            raise self._fault(f"expected {symbol!r}")

    def _next(self, expected: str) -> _Token:
        token = self._peek()
        if token is None:
            raise self._fault(f"expected {expected}")
        self._at += 1
        return token

    def _fault(self, what: str, *, back: int = 0) -> MemoryFailure:
        token = self._peek(-back)
        return self._fault_at(len(self._text.rstrip()) if token is None else token.position, what)

    def _fault_at(self, position: int, what: str) -> MemoryFailure:
        return MemoryFailure(f"filter {self._text!r}, column {position + 1}: {what}")


def _unquoted(text: str) -> str:
    inner = text[1:-1]
    if text[0] == "'":
        inner = inner.replace("\\'", "'").replace('"', '\\"')
    try:
        return str(orjson.loads(f'"{inner}"'))
    except orjson.JSONDecodeError:
        raise MemoryFailure(f"filter: {text} has an escape that JSON does not know") from None
