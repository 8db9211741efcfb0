"""Verbs that people know from the documentation of what SAGE will be: what this version has instead of each."""

from __future__ import annotations

from collections.abc import Sequence

from sage.errors import NotInThisVersion

_INSTEAD = {
    "chat": "write a question with `sage topics produce`",
    "dashboard": "look with `sage topics`, `sage dlq` and `sage status`",
    "serve": "write to a source's topic with `sage topics produce`",
    "trace": "set OTEL_EXPORTER_OTLP_ENDPOINT, and look in Jaeger",
}
"""What to do instead, by the words typed after ``sage``; empty where there is nothing."""

_EXIT_USAGE = 2


def later_verb(words: Sequence[str]) -> NotInThisVersion | None:
    """The error for a verb that a later version has; ``None`` for every other word."""
    for length in (1, 2):
        typed = " ".join(words[:length])
        if typed in _INSTEAD:
            instead = f"; {_INSTEAD[typed]}" if _INSTEAD[typed] else ""
            return NotInThisVersion(f"sage {typed} is not in this version{instead}", exit_code=_EXIT_USAGE)
    return None
