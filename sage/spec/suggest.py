"""The nearest valid name to one that somebody mistyped."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LISTED = 8


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``name`` was most likely meant to be, or ``None``."""
    spelled = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(name.lower(), spelled, n=1, cutoff=0.6)
    if matches:
        return spelled[matches[0]]
    starting = [candidate for candidate in spelled if len(name) > 1 and candidate.startswith(name.lower())]
    return spelled[starting[0]] if len(starting) == 1 else None


def hint(name: str, known: Iterable[str], *, what: str = "known") -> str:
    """The end of a message about an unknown name: ``did you mean top_k?``, or what there is.

    >>> hint("topq", ["collection", "top_k"])
    'did you mean top_k?'
    >>> hint("zzz", ["collection", "top_k"], what="options")
    'options: collection, top_k'
    """
    names = sorted(set(known))
    found = nearest(name, names)
    if found is not None:
        return f"did you mean {found}?"
    if not names:
        return f"there are no {what}" if what != "known" else "there are none"
    shown = ", ".join(names[:_LISTED])
    return f"{what}: {shown}" + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
