"""Calling a verb's function with what was typed: the one place that knows the argument parser."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, ValidationError

from sage.cli.command_help import describe
from sage.cli.flags import UsageError
from sage.cli.verbs import Verb


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
        message = _message(error)
        if verb.example and isinstance(error, MissingArgumentError):
            message += f", for example `{verb.example}`"
        raise UsageError(f"{verb.words}: {message}; see `sage {verb.words} --help`") from error
    return result if isinstance(result, int) else 0


def _message(error: CycloptsError) -> str:
    """What is wrong, on one line."""
    if isinstance(error, ValidationError) and error.argument is not None and error.argument.tokens:
        token = error.argument.tokens[0]
        name = token.keyword or error.argument.name.lstrip("-").upper()
        return f"{name} {error.exception_message}; found {token.value}"
    error.verbose = False
    return " ".join(str(error).split()).rstrip(".")


def command_help(verb: Verb) -> str:
    """What ``sage VERB --help`` prints."""
    return describe(verb.words, _app(verb), function_of(verb))


def _app(verb: Verb) -> App:
    app = App(
        name=f"sage {verb.words}",
        help_flags=[],
        version_flags=[],
        suppress_keyboard_interrupt=False,
        # No `--no-yes` and no `--empty-only`: they say nothing that leaving the option out doesn't.
        default_parameter=Parameter(negative=()),
    )
    app.default(function_of(verb))
    return app


def function_of(verb: Verb) -> Callable[..., Any]:
    """What the verb runs."""
    module, _, name = verb.target.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
