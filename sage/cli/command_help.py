"""The help of one command, from its function's signature and docstring."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyclopts import App
from cyclopts.argument import Argument

from sage.cli.help import GLOBAL_OPTIONS

_WIDTH = 100
_NAMES = {bool: "", int: "N", float: "N", str: "TEXT", Path: "PATH"}


def describe(words: str, app: App, function: Callable[..., Any]) -> str:
    """What ``sage WORDS --help`` prints."""
    arguments = [one for one in app.assemble_argument_collection() if one.show]
    positional = [one for one in arguments if _is_positional(one)]
    options = [one for one in arguments if not _is_positional(one)]
    usage = " ".join(["sage", words, *(_usage(one) for one in positional), "[OPTIONS]"])
    lines = [f"Usage: {usage}", ""]
    lines += textwrap.wrap(" ".join((inspect.getdoc(function) or "").replace("``", "`").split()), _WIDTH)
    if positional:
        lines += ["", "Arguments:", *_aligned([(_metavar(one), _text(one)) for one in positional])]
    if options:
        lines += ["", "Options:", *_aligned([(_option(one), _text(one)) for one in options])]
    lines += ["", "Options of every command:", *_aligned(list(GLOBAL_OPTIONS))]
    return "\n".join(lines)


def _is_positional(argument: Argument) -> bool:
    return argument.field_info.kind is not inspect.Parameter.KEYWORD_ONLY


def _usage(argument: Argument) -> str:
    return _metavar(argument) if argument.required else f"[{_metavar(argument)}]"


def _metavar(argument: Argument) -> str:
    name = argument.names[0].lstrip("-").replace("-", "_").upper() if argument.names else argument.name.upper()
    return f"{name}..." if _is_many(argument) else name


def _option(argument: Argument) -> str:
    names = sorted(argument.names, key=lambda name: (name.startswith("--"), argument.names.index(name)))
    choices = argument.get_choices()
    if choices:
        value = "|".join(choices)
    else:
        value = next((text for kind, text in _NAMES.items() if kind in _kinds(argument.hint)), "TEXT")
    return f"{', '.join(names)} {value}".strip()


def _text(argument: Argument) -> str:
    text = argument.parameter.help or ""
    default = argument.field_info.default
    if default in {inspect.Parameter.empty, None, False} or default == ():
        return text
    return f"{text} [{default}]".strip()


def _is_many(argument: Argument) -> bool:
    kinds = _kinds(argument.hint)
    return argument.field_info.kind is inspect.Parameter.VAR_POSITIONAL or bool(kinds & {list, tuple, set})


def _kinds(hint: Any) -> set[Any]:
    """The types inside ``hint``: of ``list[Path] | None`` list and Path."""
    from typing import get_args, get_origin

    inner = get_args(hint)
    if not inner:
        return {hint}
    found: set[Any] = {get_origin(hint)}
    for one in inner:
        found |= _kinds(one)
    return found


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    width = min(30, max(len(name) for name, _ in rows))
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, _WIDTH - width - 4) or [""]
        if len(name) > width:
            lines.append(f"  {name}")
            name = ""  # noqa: PLW2901 - the text goes to the next line, under the others
        lines += [f"  {name:<{width}}  {wrapped[0]}".rstrip(), *(" " * (width + 4) + more for more in wrapped[1:])]
    return lines
