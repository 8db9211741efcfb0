"""Calling a verb's function with what was typed: the one place that knows the argument parser."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Literal

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter

from sage.cli.command_help import describe
from sage.cli.flags import UsageError
from sage.cli.verbs import GROUPS, VERBS, Verb
from sage.version import __version__


def call(verb: Verb, arguments: Sequence[str]) -> int:
    """Run the verb; what its function returns is the exit code, ``None`` is 0.

    Raises:
        UsageError: the arguments don't fit it.
    """
    # gRPC's C library writes its own remarks on standard error, and asks for this before it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app = _app(verb)
    try:
        result = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        error.verbose = False
        message = " ".join(str(error).split()).rstrip(".")
        if verb.example and isinstance(error, MissingArgumentError):
            message += f", for example `{verb.example}`"
        raise UsageError(f"{verb.words}: {message}; see `sage {verb.words} --help`") from error
    return result if isinstance(result, int) else 0


def command_help(verb: Verb) -> str:
    """What ``sage VERB --help`` prints."""
    return describe(verb.words, _app(verb), _function(verb))


def completion_script(shell: Literal["bash", "zsh", "fish"]) -> str:
    """A script that completes every verb and option in ``shell``."""
    root = App(name="sage", help_format="plaintext", version=__version__, default_parameter=Parameter(negative=()))
    groups = {name: App(name=name, help=text) for name, text in GROUPS.items()}
    for group in groups.values():
        root.command(group)
    for verb in VERBS.values():
        parent = root if len(verb.path) == 1 else groups[verb.path[0]]
        parent.command(verb.target, name=verb.path[-1], help=verb.summary)
    return root.generate_completion(prog_name="sage", shell=shell)


def _app(verb: Verb) -> App:
    app = App(
        name=f"sage {verb.words}",
        help_flags=[],
        version_flags=[],
        suppress_keyboard_interrupt=False,
        # No `--no-yes` and no `--empty-only`: they say nothing that leaving the option out doesn't.
        default_parameter=Parameter(negative=()),
    )
    app.default(_function(verb))
    return app


def _function(verb: Verb) -> Callable[..., Any]:
    module, _, name = verb.target.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
