"""``sage version`` and ``sage completion``."""

from __future__ import annotations

import platform
from typing import Annotated, Literal

from cyclopts import Parameter

from sage.cli.terminal import terminal
from sage.version import __version__


def version() -> None:
    """Print the version; with ``-o json`` also those of what it stands on."""
    shown = terminal()
    if not shown.flags.output_given or shown.flags.output == "table":
        shown.line(f"sage {__version__}")
        return
    from sage.operations.versions import versions

    shown.details({"sage": __version__, "python": platform.python_version(), **versions()})


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell it is for.")], /) -> None:
    """Print a completion script. For bash: ``sage completion bash > ~/.bash_completion.d/sage``."""
    from sage.cli.completion import completion_script

    terminal().line(completion_script(shell).rstrip("\n"))
