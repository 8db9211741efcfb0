"""Where in the user's program a step was written."""

from __future__ import annotations

import sys
from pathlib import Path

from sage.graph.topology import Origin
from sage.spec.reference import is_users_file

_PACKAGE = str(Path(__file__).resolve().parent.parent)


def caller_origin() -> Origin | None:
    """The file and line of the nearest frame outside this package and Python's own; ``None`` where there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE) and is_users_file(file):
            return Origin(_shown(file), frame.f_lineno)
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


def caller_place() -> str | None:
    """The same as text, for the place of an error."""
    origin = caller_origin()
    return None if origin is None else str(origin)


def _shown(file: str) -> str:
    """The file as the user would type it: relative where it lies below the working folder."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, not a file at all, or the working folder is gone
        return file
