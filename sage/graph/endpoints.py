"""The ends that live in the caller's program: a collection to read, a list that fills, the standard output."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, ClassVar

import orjson

from sage.model.json import Json
from sage.model.record import Record
from sage.spec.component import Sink, Source


class Collection(Source[Any]):
    """The values given to ``from_collection``; a position is the number of values given so far."""

    local = True
    values: ClassVar[tuple[Any, ...]] = ()

    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        """Yield the values after ``position``; it ends by itself, bounded or not."""
        start = position if isinstance(position, int) else 0
        for index in range(start, len(self.values)):
            yield self.values[index], index + 1


class Collect(Sink[Any]):
    """Appends values to the list that ``collect()`` gave; a record that is written again is left out."""

    local = True
    into: ClassVar[list[Any]] = []
    seen: ClassVar[set[str]] = set()
    lock: ClassVar[threading.Lock] = threading.Lock()

    async def write(self, records: Sequence[Record[Any]]) -> None:
        """Append the records' values; several actors may do so at once."""
        with self.lock:
            for record in records:
                if record.id:
                    if record.id in self.seen:
                        continue
                    self.seen.add(record.id)
                self.into.append(record.value)


class Print(Sink[Any]):
    """Writes each value on a line of the standard output: text as it is, other values as JSON."""

    local = True

    async def write(self, records: Sequence[Record[Any]]) -> None:
        """Write and flush the lines."""
        lines = [value if isinstance(value, str) else _line(value) for value in (record.value for record in records)]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


def collection_of(values: Iterable[Any]) -> type[Collection]:
    """A source class that yields ``values``, which are read once, here."""
    return type("Collection", (Collection,), {"values": tuple(values), "__module__": __name__, "__doc__": None})


def collect_into(values: list[Any]) -> type[Collect]:
    """A sink class that appends to ``values``."""
    members = {"into": values, "seen": set(), "lock": threading.Lock(), "__module__": __name__, "__doc__": None}
    return type("Collect", (Collect,), members)


def _line(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return orjson.dumps(value, default=_model).decode()


def _model(value: Any) -> Any:
    """What JSON has no form for: a pydantic model as its fields, anything else as its text."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)
