"""Which indexes of a collection a row belongs to: the one place that decides it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sage.errors import IndexFilterMissing, MemoryFailure, NotFound
from sage.memory.filter_text import parse
from sage.memory.filters import matches
from sage.memory.manifest import IndexEntry, missing

MetadataFilter = Callable[[dict[str, Any]], Any]
"""A function of a row's metadata; a true result lets the row through."""

Admission = Callable[[dict[str, Any]], bool]


def memberships(
    collection: str,
    indexes: Mapping[str, IndexEntry],
    functions: Mapping[str, MetadataFilter],
    asked: Sequence[str] = (),
) -> Callable[[dict[str, Any]], tuple[str, ...]]:
    """The function from a row's metadata to the indexes that hold it.

    Args:
        collection: for messages.
        indexes: the collection's indexes.
        functions: the filter functions that this process has, by index.
        asked: only these indexes; without any, all of them.

    Raises:
        NotFound: an index asked for does not exist.
        IndexFilterMissing: an index was made with a function that this process does not have.
    """
    for name in asked:
        if name not in indexes:
            raise NotFound(missing(f"collection {collection!r}: index", name, indexes, "make it with create_index"))
    admissions = {
        name: admission(collection, name, indexes[name], functions.get(name))
        for name in (dict.fromkeys(asked) if asked else indexes)
    }
    return lambda metadata: tuple(name for name, admits in admissions.items() if admits(metadata))


def admission(collection: str, name: str, entry: IndexEntry, function: MetadataFilter | None) -> Admission:
    """Whether one index lets a row in, as a function of the row's metadata.

    Raises:
        IndexFilterMissing: it was made with a function that this process does not have.
    """
    if entry.kind == "all":
        return lambda metadata: True
    if entry.kind == "filter":
        tree = parse(entry.filter or "")
        return lambda metadata: matches(tree, metadata)
    if function is None:
        raise IndexFilterMissing(
            f"collection {collection!r}: index {name!r} was made with a filter function that this process does not "
            f"have; give it again with create_index({name!r}, metadata_filter_func=...), or insert into other indexes "
            "by naming them"
        )
    return guarded(collection, f"index {name!r}", function)


def guarded(collection: str, what: str, function: MetadataFilter) -> Admission:
    """The user's function, with an error of its own named as such."""

    def admits(metadata: dict[str, Any]) -> bool:
        try:
            # A copy: the function is the user's, and the row is not its to change.
            return bool(function(dict(metadata)))
        except Exception as error:
            raise MemoryFailure(
                f"collection {collection!r}: the filter function of {what} failed with "
                f"{type(error).__name__}: {error}; the metadata has: {', '.join(sorted(metadata)) or 'nothing'}"
            ) from error

    return admits
