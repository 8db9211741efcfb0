"""``sage init``: a starter project."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sage.cli.terminal import terminal


def init(
    name: Annotated[Path, Parameter(help="The folder to make.")],
    /,
    *,
    template: Annotated[str, Parameter(name=["--template", "-t"], help="Which project.")] = "rag-qa",
) -> None:
    """Make a starter project: a topology, documents, questions with known answers, a test."""
    from sage.operations.starter import create

    shown = terminal()
    made = create(name, template)
    if shown.is_structured:
        shown.data({"folder": str(made.folder), "template": template, "files": [str(file) for file in made.files]})
        return
    shown.line(f"created {', '.join(made.summary())}.  Next: cd {shlex.quote(str(name))} && sage up")
