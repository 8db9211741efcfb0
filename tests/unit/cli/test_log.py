"""What SAGE logs, on standard error."""

from __future__ import annotations

import io
import logging

import pytest

from sage.cli.flags import Flags
from sage.cli.log import log_to
from sage.cli.terminal import Terminal

logger = logging.getLogger("sage.runtime")


def said(flags: Flags) -> list[str]:
    """What is written when one line of each level is logged."""
    terminal = Terminal(flags, out=io.StringIO(), err=io.StringIO())
    log_to(terminal)
    log_to(terminal)
    logger.debug("detail")
    logger.warning("step %s is dead", "a")
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("an error")
    assert isinstance(terminal.err, io.StringIO)
    return terminal.err.getvalue().splitlines()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(Flags(), ["step a is dead", "an error"]), (Flags(quiet=True), ["an error"])],
)
def test_warnings_are_lines_and_quiet_leaves_errors(flags: Flags, expected: list[str]) -> None:
    assert said(flags) == expected


def test_debug_shows_everything_with_tracebacks() -> None:
    lines = said(Flags(debug=True))
    assert lines[:2] == ["debug sage.runtime: detail", "warning sage.runtime: step a is dead"]
    assert lines[-1] == "ValueError: no"
