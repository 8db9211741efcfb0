"""From a path, a glob or a folder to the files that are there."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from sage.errors import InvalidTopology, NotFound

DOCUMENT_SUFFIXES = frozenset({".md", ".markdown", ".txt", ".text", ".rst"})
"""What a folder of documents is searched for; anything else is named explicitly, by a glob."""


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a source, sorted, as the user would write them.

    Attributes:
        files: paths, relative where the configured path is.
        root: the folder that document names are relative to.
        passed_over: files in a folder of documents whose suffix says that they are not text.
    """

    files: tuple[str, ...]
    root: str
    passed_over: tuple[str, ...] = ()


def expanded(path: str) -> Path:
    """``path`` with the home folder in place of ``~``.

    Raises:
        NotFound: the user that ``~`` stands for has none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise NotFound("no home folder is known for what begins with ~; write the path out", where=path) from None


def is_glob(path: str) -> bool:
    """Whether ``path`` has wildcards and is not the literal name of something that exists."""
    return glob.has_magic(path) and not expanded(path).exists()


def locate(path: str, *, documents: bool = False, may_be_empty: bool = False) -> Found:
    """The files that ``path`` names now.

    Args:
        path: a file, a glob (``**`` goes into folders), or with ``documents`` a folder.
        documents: whole files are read, so a folder stands for all text files below it.
        may_be_empty: a glob without a match is no error, because files may come later.

    Raises:
        NotFound: nothing is there.
        InvalidTopology: it is a folder, and rows were asked for; or a pipe or device.
    """
    place = expanded(path)
    if place.is_dir():
        return _folder(place, documents=documents)
    if place.exists():
        if _is_stream(place):
            raise InvalidTopology(
                "is a pipe or device, which can't be gone back in; make it a file, or send its lines to a topic with"
                " `sage topics produce`",
                where=str(place),
            )
        return Found((str(place),), str(place.parent))
    if not glob.has_magic(path):
        raise NotFound(f"no such file (working directory {Path.cwd()}); check the path", where=path)
    matches = glob.glob(str(place), recursive=True)  # noqa: PTH207 - takes absolute patterns and keeps relative ones
    files = sorted(match for match in matches if not (Path(match).is_dir() or _is_stream(Path(match))))
    if not files and not may_be_empty:
        raise NotFound(f"no file matches (working directory {Path.cwd()}); check the pattern", where=path)
    return Found(tuple(files), _fixed_part(str(place)))


def _is_stream(place: Path) -> bool:
    """Whether its bytes come once, or without end."""
    return place.is_fifo() or place.is_socket() or (place.is_char_device() and not place.samefile(os.devnull))


def _folder(place: Path, *, documents: bool) -> Found:
    if not documents:
        raise InvalidTopology(f"is a folder; name its files by a glob, such as {place / '*'}", where=str(place))
    found = sorted(
        child
        for child in place.rglob("*")
        if child.is_file() and not any(part.startswith(".") for part in child.relative_to(place).parts)
    )
    texts = tuple(str(child) for child in found if child.suffix.lower() in DOCUMENT_SUFFIXES)
    others = tuple(str(child) for child in found if child.suffix.lower() not in DOCUMENT_SUFFIXES)
    if not texts:
        kinds = ", ".join(sorted(DOCUMENT_SUFFIXES))
        raise NotFound(
            f"no document in this folder (looked for {kinds}; found {len(others)} other files)", where=str(place)
        )
    return Found(texts, str(place), others)


def _fixed_part(pattern: str) -> str:
    """The folders of a glob before its first wildcard."""
    parts = Path(pattern).parts
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return str(Path(*parts[:fixed])) if fixed else "."
