"""The options that every command takes, anywhere on its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Format = Literal["table", "wide", "json", "yaml"]

FORMATS: tuple[str, ...] = get_args(Format)


class UsageError(Exception):
    """What was typed can't be understood; exit code 2."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The options of every command; ``rest`` is what the command itself is given."""

    output: str = "table"
    output_given: bool = False
    quiet: bool = False
    debug: bool = False
    no_input: bool = False
    help: bool = False
    rest: tuple[str, ...] = ()


def parse_flags(arguments: Sequence[str]) -> Flags:
    """Take the common options out of ``arguments``; what follows ``--`` is left alone.

    Raises:
        UsageError: an output format is missing or unknown.
    """
    rest: list[str] = []
    output: str | None = None
    seen: set[str] = set()
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in {"-o", "--output"}:
            output = _format(next(words, None))
        elif word.startswith("--output="):
            output = _format(word.partition("=")[2])
        elif word.startswith("-o") and word[2:] in FORMATS:
            output = word[2:]
        elif word in _SWITCHES:
            seen.add(_SWITCHES[word])
        else:
            rest.append(word)
    return Flags(
        output=output or "table",
        output_given=output is not None,
        quiet="quiet" in seen,
        debug="debug" in seen,
        no_input="no_input" in seen,
        help="help" in seen,
        rest=tuple(rest),
    )


_SWITCHES = {
    "-q": "quiet",
    "--quiet": "quiet",
    "--debug": "debug",
    "--no-input": "no_input",
    "-h": "help",
    "--help": "help",
}


def _format(text: str | None) -> str:
    if text not in FORMATS:
        found = "nothing follows it" if text is None else f"found {text!r}"
        raise UsageError(f"-o takes one of {', '.join(FORMATS)}; {found}")
    return text
