"""The standard streams as commands rely on them: all three are there, and take every text."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def prepare_streams() -> None:
    """Put the null device where a stream was closed (`>&-`), and escapes where it can't encode a character.

    Without it a closed standard error has Python print errors on standard output, and the next file that is opened
    gets the number of the closed stream, with whatever a library writes there.
    """
    for name, mode in _STREAMS:
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - stays open until the process ends
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
