"""``sage models``: local models that need no account."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from sage.cli.options import PORT_RANGE
from sage.cli.terminal import Column, terminal

_DEFAULT = "local/smollm2"

Name = Annotated[str, Parameter(name="MODEL", help="Such as local/smollm2.")]


def list_models() -> None:
    """List the local models, and whether each is on this machine."""
    from sage import app

    rows = [
        {
            "name": one.name,
            "description": one.description,
            "size": one.size,
            "here": one.path is not None,
            "path": None if one.path is None else str(one.path),
        }
        for one in app.local_models()
    ]
    columns = (
        Column("name", "MODEL"),
        Column("size", right=True, show=megabytes),
        Column("here", show=lambda here: "yes" if here else "no, `sage models pull`"),
        Column("description"),
        Column("path", wide=True),
    )
    terminal().rows(rows, columns, empty="no local models")


def pull(model: Name = _DEFAULT, /) -> None:
    """Make a local model ready to use; does nothing when it is here already."""
    from sage import app

    shown = terminal()
    path = app.ensure_local_model(model, lambda done, total: shown.bar(f"{model} (MB)", done // 10**6, total // 10**6))
    if shown.is_structured:
        shown.data({"model": model, "path": str(path), "size": path.stat().st_size})
    else:
        shown.line(f"{model} {megabytes(path.stat().st_size)} {path}")


def serve(
    model: Name = _DEFAULT,
    /,
    *,
    port: Annotated[
        int, Parameter(help="Where to listen on this machine; 0 takes a free one.", validator=PORT_RANGE)
    ] = 18080,
) -> None:
    """Serve a local model over the OpenAI protocol until Ctrl-C; `sage up` does it in the background."""
    from sage import app

    app.serve_local_model(model, port)


def megabytes(size: int) -> str:
    """``98 MB``."""
    return f"{size / 1e6:.0f} MB"
