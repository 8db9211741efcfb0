"""Connectors: sources and sinks that come with SAGE.

Each is imported when it is first used, so that a command that needs none of them pays for none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage_connectors.file_sink import FileSink
    from sage_connectors.file_source import FileSource
    from sage_connectors.print_sink import PrintSink
    from sage_connectors.terminal_sink import TerminalSink

__all__ = ["FileSink", "FileSource", "PrintSink", "TerminalSink"]

_HOMES = {
    "FileSink": "file_sink",
    "FileSource": "file_source",
    "PrintSink": "print_sink",
    "TerminalSink": "terminal_sink",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
