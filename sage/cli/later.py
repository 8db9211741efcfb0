"""Verbs that people know from the documentation of what SAGE will be: what this version has instead of each."""

from __future__ import annotations

from collections.abc import Sequence

from sage.errors import NotInThisVersion

_RUN = "run `sage topology run` on each machine"
_AGAIN = "`sage topology run` goes on where it stopped"
_IN_GIT = "keep the file in git, and run the one you want"

_INSTEAD = {
    "bench": "in a clone of the repository: `make bench`",
    "chat": "write a question with `sage topics produce`",
    "config": "give --bootstrap-servers, or set SAGE_BOOTSTRAP_SERVERS",
    "dashboard": "look with `sage topics`, `sage dlq` and `sage status`",
    "demo crash": "kill one of two `sage topology run`, and the other takes over",
    "dev": "after a change type `sage topology run` again",
    "dlq purge": "",
    "dlq replay": "see the records with `sage dlq show`, write them again with `sage topics produce`",
    "groups": "`sage topics describe` shows lag",
    "serve": "write to a source's topic with `sage topics produce`",
    "state": "",
    "topology delete": "",
    "topology deploy": _RUN,
    "topology describe": "see `sage topology plan`",
    "topology drain": "Ctrl-C drains a `sage topology run`",
    "topology eval": "add an `evaluator` step",
    "topology history": _IN_GIT,
    "topology list": "`sage topics list` shows what has run",
    "topology logs": "`sage topology run` writes them on standard error",
    "topology pause": "Ctrl-C drains a `sage topology run`",
    "topology restart": _AGAIN,
    "topology resume": _AGAIN,
    "topology rollback": _IN_GIT,
    "topology scale": "start `sage topology run` once more, and it shares the partitions",
    "topology status": "`sage topics describe` shows lag",
    "topology wait": "see `sage topology run --until-idle`",
    "trace": "set OTEL_EXPORTER_OTLP_ENDPOINT, and look in Jaeger",
    "worker": _RUN,
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
