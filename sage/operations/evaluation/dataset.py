"""A data set: questions with the answers that are expected, one JSON object a line."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage.operations.json_lines import JsonLine, json_lines, refused


@dataclass(frozen=True, slots=True)
class Example:
    """One question.

    Attributes:
        line: its line in the file, from 1 on.
        query: the question.
        expected: the answers that are right; the best one counts.
        record: the whole object, as it is given to the topology.
    """

    line: int
    query: str
    expected: tuple[str, ...]
    record: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The object's own ``id``, else the question: what it is known by in another run."""
        return str(self.record.get("id", self.query))


@dataclass(frozen=True, slots=True)
class Dataset:
    """The questions of a file.

    Attributes:
        path: as it was given.
        digest: of the file's bytes: the same data has the same.
        examples: at least one.
    """

    path: str
    digest: str
    examples: tuple[Example, ...]


def read_dataset(path: Path) -> Dataset:
    """Read a data set; blank lines are left out.

    Raises:
        NotFound: there is no such file.
        DecodeFailure: it is no text, a line is no question with its answers, or there is none; exit code 2.
        SageError: it can't be read.
    """
    examples = tuple(_example(line) for line in json_lines(path, wants="--dataset wants questions"))
    if not examples:
        raise refused("has no questions; write one JSON object a line", str(path))
    return Dataset(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), examples)


def _example(line: JsonLine) -> Example:
    record, where = line.value, line.where
    if not isinstance(record, dict):
        raise refused(f"found {_kind(record)}; write an object with query and expected", where)
    query = record.get("query")
    if not isinstance(query, str) or not query.strip():
        raise refused(f"query must be a text; {_found(record, 'query')}", where)
    return Example(line.number, query, _expected(record, where), record)


def _expected(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    field = "expected" if "expected" in record or "references" not in record else "references"
    given = record.get(field)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise refused(
            f"{field} must be a text or a list of texts (references is read too); {_found(record, field)}", where
        )
    return tuple(texts)


def _found(record: Mapping[str, Any], field: str) -> str:
    if field in record:
        return f"found {_kind(record[field])}"
    return f"the object has {', '.join(record) or 'no fields'}"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    if value in ("", []):
        return "an empty text" if value == "" else "an empty list"
    return names.get(type(value), "a number")
