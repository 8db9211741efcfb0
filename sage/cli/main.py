"""``sage``: find the verb, run it, and turn what it raised into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 not understood, 3 invalid topology, 4 not found or unreachable, 5 took too long,
130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from sage.cli.flags import Flags, UsageError, parse_flags
from sage.cli.help import group_help, root_help
from sage.cli.interruption import is_interruption, remembered
from sage.cli.later import later_verb
from sage.cli.streams import prepare_streams
from sage.cli.terminal import Terminal, set_terminal
from sage.cli.verbs import GROUPS, VERBS, Verb, names_at
from sage.errors import SageError, ServiceFailed

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    prepare_streams()
    with remembered():
        return _main(sys.argv[1:] if arguments is None else list(arguments))


def _main(words: list[str]) -> int:
    terminal = Terminal(Flags(debug="--debug" in words))
    try:
        _refuse_bytes(words)
        flags = parse_flags(words)
        terminal = Terminal(flags)
        set_terminal(terminal)
        if flags.debug:
            os.environ["SAGE_DEBUG"] = "1"  # environments then keep the causes of what they raise
        return _run(flags, terminal)
    except BaseException as error:
        if terminal.flags.debug and not isinstance(error, (SystemExit, BrokenPipeError)):
            terminal.error(traceback.format_exc().rstrip())
        return _report(error, terminal)


def _refuse_bytes(words: Sequence[str]) -> None:
    """Raises UsageError at what is not UTF-8: no name in Kafka or Milvus can be, and their C code fails on it."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{word!r} is not UTF-8; type it in a UTF-8 terminal") from None


def _run(flags: Flags, terminal: Terminal) -> int:
    words = flags.rest
    if not words:
        terminal.line(root_help())
        return 0
    if words[0] == "--version":
        words = ("version", *words[1:])
    if words[0] == "help":
        words, flags = words[1:], Flags(help=True, rest=words[1:])
        if not words:
            terminal.line(root_help())
            return 0
    verb, rest = _find(words)
    if verb is None:
        terminal.line(group_help(words[0]))
        return 0
    from sage.cli.dispatch import call, command_help

    if flags.help:
        terminal.line(command_help(verb))
        return 0
    from sage.cli.log import log_to

    log_to(terminal)
    return call(verb, rest)


def _find(words: Sequence[str]) -> tuple[Verb | None, tuple[str, ...]]:
    """The verb and its own arguments; no verb where only a group was typed."""
    later = later_verb(words)
    if later is not None:
        raise later
    for length in (1, 2):
        verb = VERBS.get(tuple(words[:length]))
        if verb is not None:
            return verb, tuple(words[length:])
    if words[0] not in GROUPS:
        raise UsageError(f"{words[0]!r} is not a command{_nearest(words[0], names_at(()))}; see `sage --help`")
    if len(words) == 1:
        return None, ()
    group, word = words[0], words[1]
    raise UsageError(
        f"{group} {word!r} is not a command{_nearest(word, names_at((group,)))}; see `sage {group} --help`"
    )


def _nearest(word: str, known: list[str]) -> str:
    from sage.spec.suggest import nearest

    found = nearest(word, known)
    return f", did you mean {found!r}?" if found else ""


def _report(error: BaseException, terminal: Terminal) -> int:
    """One line on standard error for the person who typed the command; the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_FAILED
    if isinstance(error, BrokenPipeError):
        # The reader of our output went away (`sage topics tail x | head -1`): that is how it says "enough".
        # Python flushes the stream once more at its end, which must not fail again.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - stays open until the process ends
        return 0
    if is_interruption(error):
        terminal.error("interrupted")
        return EXIT_INTERRUPTED
    if isinstance(error, UsageError):
        terminal.error(f"sage: {error}")
        return EXIT_USAGE
    if isinstance(error, SageError):
        if isinstance(error, ServiceFailed):
            for line in error.log_tail:
                terminal.error(f"  | {line}")
        terminal.error(str(error))
        return error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        # Whoever asked for the file can do something about it, wherever in SAGE it was met.
        terminal.error(str(SageError(f"{error.strerror}; --debug shows where", where=str(error.filename))))
        return EXIT_FAILED
    terminal.error(
        f"sage: unexpected {type(error).__name__}: {_first_line(error)}; run again with --debug to see where"
    )
    return EXIT_FAILED


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
