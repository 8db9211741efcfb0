"""Where commands write: data to standard output in the format asked for, all else to standard error."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TextIO

from sage.cli import text
from sage.cli.flags import Flags, UsageError
from sage.errors import SageError
from sage.model.secrets import hide_secrets

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        key: the field of a row.
        title: the heading; the key in capitals where empty.
        wide: shown by ``-o wide`` only.
        right: stands to the right, as numbers do.
        show: how a value becomes text.
    """

    key: str
    title: str = ""
    wide: bool = False
    right: bool = False
    show: Callable[[Any], str] | None = None

    def cell(self, row: Row) -> str:
        """The row's value as one line of text; nothing is ``-``."""
        value = row.get(self.key)
        if value is None or value == "":
            return "-"
        return text.one_line(self.show(value) if self.show is not None else str(value))


class Terminal:
    """Standard output, standard error, and the common options of this call."""

    def __init__(self, flags: Flags, *, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.flags = flags
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self._progress_shown = False

    # ------------------------------------------------------------------------------------------ data

    @property
    def is_structured(self) -> bool:
        """Whether JSON or YAML was asked for."""
        return self.flags.output in {"json", "yaml"}

    def rows(self, rows: Iterable[Row], columns: Sequence[Column], *, empty: str = "nothing here") -> None:
        """A list: a table, or all its fields as JSON or YAML. ``empty`` is said when there is nothing."""
        found = list(rows)
        if self.is_structured:
            self.data(found)
            return
        if not found:
            self.note(empty)
            return
        shown = [column for column in columns if self.flags.output == "wide" or not column.wide]
        titles = [self.dim(column.title or column.key.upper()) for column in shown]
        limit = shutil.get_terminal_size().columns if self.out.isatty() and self.flags.output == "table" else None
        cells = [[column.cell(row) for column in shown] for row in found]
        for line in text.columns([titles, *cells], right=[column.right for column in shown], limit=limit):
            self.line(line)

    def details(self, fields: Row) -> None:
        """One thing: its fields below each other, or as JSON or YAML."""
        if self.is_structured:
            self.data(fields)
            return
        rows = [[self.dim(name.replace("_", " ")), _flat(value)] for name, value in fields.items()]
        for line in text.columns(rows):
            self.line(line)

    def data(self, value: Any) -> None:
        """A value as JSON, or as YAML where that was asked for."""
        self.line(self.formatted(value))

    def formatted(self, value: Any) -> str:
        """What ``data`` prints."""
        if self.flags.output == "yaml":
            return _yaml(value).rstrip("\n")
        return self._json(value, indent=2)

    def record(self, value: Any) -> None:
        """One record of a stream: one line of JSON, or a YAML document where that was asked for."""
        if self.flags.output == "yaml":
            self.line("---")
            self.data(value)
        else:
            self.line(self._json(value))

    def _json(self, value: Any, *, indent: int | None = None) -> str:
        """JSON that is still JSON where the stream can't encode every character: with JSON's own escapes."""
        encodes_all = (getattr(self.out, "encoding", None) or "utf-8").lower().startswith("utf")
        return json.dumps(value, indent=indent, ensure_ascii=not encodes_all, default=str)

    def line(self, content: str = "") -> None:
        """One line of data.

        Raises:
            BrokenPipeError: its reader has gone.
            SageError: it can't be written, to a disk that is full for example.
        """
        self._clear_progress()
        try:
            print(content, file=self.out, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise SageError(f"can't be written: {error.strerror}", where="standard output") from error

    # ------------------------------------------------------------------------------- everything else

    def note(self, content: str) -> None:
        """A remark for the person at the terminal; ``--quiet`` leaves it out."""
        if not self.flags.quiet:
            self.error(content)

    def error(self, content: str) -> None:
        """A line on standard error, whatever the options; secrets that an exception quoted are hidden.

        Where nobody can read it any more, the command goes on without: its work and its exit code are what counts.
        """
        with suppress(OSError):
            self._clear_progress()
            print(hide_secrets(content), file=self.err, flush=True)

    def progress(self, content: str) -> None:
        """What is being waited for: one line that the next one replaces. Only on a terminal."""
        if self.flags.quiet or not self.err.isatty():
            return
        line = text.cut(text.one_line(hide_secrets(content)), shutil.get_terminal_size().columns - 1)
        self.err.write(f"\r\x1b[2K{line}")
        self.err.flush()
        self._progress_shown = True

    def bar(self, label: str, done: int, total: int | None) -> None:
        """Progress of long work; ``total`` is ``None`` where nobody knows it."""
        if total:
            filled = round(20 * min(done, total) / total)
            self.progress(f"{label} [{'#' * filled}{'.' * (20 - filled)}] {done}/{total}")
        else:
            self.progress(f"{label} {done}")

    def _clear_progress(self) -> None:
        if self._progress_shown:
            self.err.write("\r\x1b[2K")
            self.err.flush()
            self._progress_shown = False

    # -------------------------------------------------------------------------------------- questions

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something is lost; ``yes`` answers beforehand.

        Raises:
            UsageError: nobody is there to answer, or the answer is no.
        """
        if yes:
            return
        if self.flags.no_input or not (sys.stdin.isatty() and self.err.isatty()):
            raise UsageError(f"{question} Say so with --yes")
        self._clear_progress()
        self.err.write(f"{question} [y/N] ")
        self.err.flush()
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise UsageError("nothing was done")

    # ---------------------------------------------------------------------------------------- colours

    def bold(self, content: str) -> str:
        """Emphasis, where this terminal shows it."""
        return self._styled("1", content)

    def dim(self, content: str) -> str:
        """Less important."""
        return self._styled("2", content)

    def good(self, content: str) -> str:
        """As it should be."""
        return self._styled("32", content)

    def warning(self, content: str) -> str:
        """Worth a look."""
        return self._styled("33", content)

    def bad(self, content: str) -> str:
        """Wrong."""
        return self._styled("31", content)

    def _styled(self, code: str, content: str) -> str:
        return f"\x1b[{code}m{content}\x1b[0m" if has_colour(self.out) else content


def has_colour(stream: TextIO) -> bool:
    """Whether colours may be written there: a terminal that knows them, and no ``NO_COLOR``."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


_current: ContextVar[Terminal] = ContextVar("terminal")


def set_terminal(terminal: Terminal) -> None:
    """Make ``terminal`` the one that this call's command writes to."""
    _current.set(terminal)


def terminal() -> Terminal:
    """The terminal of the command that runs."""
    return _current.get()


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_flat(one)}" for key, one in value.items()) or "-"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(_flat(one) for one in value) or "-"
    return "-" if value is None or value == "" else text.one_line(str(value))


_READ_OTHERWISE = re.compile(r"[-+.]?[0-9.]|[=<~]|(y|yes|n|no|on|off|true|false|null)$", re.IGNORECASE)
"""Texts that a reader of YAML 1.1, as many still are, would take for numbers, times or truth values."""


def _yaml(value: Any) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    # Through JSON, so that tuples, paths and frozen mappings become what YAML knows.
    plain = _exact(json.loads(json.dumps(value, default=str)))
    writer, stream = YAML(), StringIO()
    writer.default_flow_style = False
    writer.width = 2**31 - 1  # a folded text would come back with other spaces
    writer.dump(plain, stream)
    return stream.getvalue()


def _exact(value: Any) -> Any:
    """The same, with quotes around every text that would else be read as something else."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, dict):
        return {_exact(name): _exact(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_exact(each) for each in value]
    if isinstance(value, str) and (not value.isprintable() or _READ_OTHERWISE.match(value)):
        return DoubleQuotedScalarString(value)
    return value
