"""Which records were written lately, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sage.model.record import Record


class RecentIds:
    """The last ``capacity`` record ids. A replay reaches back to the last checkpoint only, far less than that."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ids: OrderedDict[str, None] = OrderedDict()

    def new(self, records: Sequence[Record[Any]]) -> list[Record[Any]]:
        """Those of ``records`` that were not written, each id once; records without an id are always new."""
        here: set[str] = set()
        fresh = []
        for record in records:
            if record.id:
                if record.id in self._ids or record.id in here:
                    continue
                here.add(record.id)
            fresh.append(record)
        return fresh

    def add(self, ids: Iterable[str]) -> None:
        """Remember ids as written, forgetting the oldest beyond the capacity."""
        self._ids.update(dict.fromkeys(ids))
        self._ids.pop("", None)
        while len(self._ids) > self._capacity:
            self._ids.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._ids.clear()

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)
