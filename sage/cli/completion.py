"""The scripts that complete verbs and options in a shell: what they propose is what the parser takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from sage.cli.dispatch import function_of
from sage.cli.flags import Format
from sage.cli.verbs import GROUPS, VERBS


def completion_script(shell: Literal["bash", "zsh", "fish"]) -> str:
    """A script that completes every verb and option in ``shell``."""
    root = App(
        name="sage",
        help_format="plaintext",
        # The generators propose the root's for every verb, and no verb takes it.
        version_flags=[],
        default_parameter=Parameter(negative=()),
    )
    root.default(_with_flags(_root))
    groups = {name: App(name=name, help=text) for name, text in GROUPS.items()}
    for group in groups.values():
        group.default(_with_flags(_group))
        root.command(group)
    for verb in VERBS.values():
        parent = root if len(verb.path) == 1 else groups[verb.path[0]]
        parent.command(_with_flags(function_of(verb)), name=verb.path[-1], help=verb.summary)
    return root.generate_completion(prog_name="sage", shell=shell)


def _root(*, version: Annotated[bool, Parameter(help="Print the version.")] = False) -> None:
    """What can follow ``sage`` itself."""


def _group() -> None:
    """What can follow the name of a group."""


def _flags(
    *,
    output: Annotated[Format, Parameter(name=["--output", "-o"], help="How data is printed.")] = "table",
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], help="No progress, only data and errors.")] = False,
    no_input: Annotated[bool, Parameter(name="--no-input", help="Never ask.")] = False,
    debug: Annotated[bool, Parameter(name="--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """The options of every command, as ``parse_flags`` takes them."""


def _with_flags(function: Callable[..., Any]) -> Callable[..., None]:
    """Something with the parameters of ``function`` and of every command, for the generators to look at."""
    own, common = (inspect.signature(one, eval_str=True) for one in (function, _flags))
    parameters = [*own.parameters.values(), *common.parameters.values()]

    def stand_in(*_: Any, **__: Any) -> None: ...

    stand_in.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # inspect looks for it
    stand_in.__annotations__ = {one.name: one.annotation for one in parameters}
    stand_in.__doc__ = function.__doc__
    return stand_in
