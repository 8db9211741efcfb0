"""What ``sage init`` does: copy a starter project."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from sage.errors import DiskFull, NotFound, SageError

PACKAGE = "sage_topologies"
_FOLDER = "templates"
_NOT_COPIED = {"__pycache__", "__init__.py"}

GITIGNORE = ".gitignore"


@dataclass(frozen=True, slots=True)
class Created:
    """What a new project holds: every file, relative to ``folder``, in order."""

    folder: Path
    files: tuple[Path, ...]

    def summary(self) -> list[str]:
        """One entry per file or folder at the top: ``rag-qa.yaml``, ``docs/ (12 pages)``, ``questions.txt (5)``."""
        entries: list[str] = []
        for name in dict.fromkeys(file.parts[0] for file in self.files):
            inside = [file for file in self.files if file.parts[0] == name and len(file.parts) > 1]
            if name.startswith("."):
                continue
            if inside:
                unit = "page" if name == "docs" else "file"
                entries.append(f"{name}/ ({len(inside)} {unit}{'s' if len(inside) > 1 else ''})")
            elif name.endswith((".txt", ".jsonl")):
                entries.append(f"{name} ({_lines(self.folder / name)})")
            else:
                entries.append(name)
        return entries


def templates() -> list[str]:
    """The names of the starter projects."""
    folder = _templates()
    if not folder.is_dir():
        return []
    return sorted(one.name.replace("_", "-") for one in folder.iterdir() if one.is_dir() and one.name[0].isalpha())


def create(folder: Path, template: str) -> Created:
    """Copy the starter project ``template`` to ``folder``, which is made where it is missing.

    Raises:
        NotFound: there is no such template.
        SageError: a file of it is in the folder already; nothing was written.
        DiskFull: there is no space for it.
    """
    source = _template(template)
    files = sorted(_files(source, ()), key=lambda parts: (len(parts) > 1, parts))
    there = [Path(*parts) for parts in files if (folder / Path(*parts)).exists()]
    if there:
        raise SageError(
            f"already holds {', '.join(map(str, there[:3]))}{', ...' if len(there) > 3 else ''}; "
            "nothing was written. Name a new folder",
            where=str(folder),
        )
    try:
        for parts in files:
            target = folder / Path(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.joinpath(*parts).read_bytes())
        _keep_services_out_of_git(folder)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull("no space is left for the project; free some and try again", where=str(folder)) from error
        reason = error.strerror or type(error).__name__
        raise SageError(f"cannot be written: {reason}; name another folder", where=str(folder)) from error
    return Created(folder, tuple(Path(*parts) for parts in files))


def _keep_services_out_of_git(folder: Path) -> None:
    ignore = folder / GITIGNORE
    if not ignore.exists():
        ignore.write_text(".sage/\n__pycache__/\n", encoding="utf-8")


def _templates() -> Traversable:
    package = resources.files(PACKAGE)
    inside = package.joinpath(_FOLDER)
    return inside if inside.is_dir() else package


def _template(name: str) -> Traversable:
    known = templates()
    if name not in known:
        near: Sequence[str] = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
        raise NotFound(f"no template is named {name!r}; {hint}")
    return _templates().joinpath(name.replace("-", "_"))


def _files(folder: Traversable, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for one in folder.iterdir():
        if one.name in _NOT_COPIED or one.name.endswith(".pyc"):
            continue
        parts = (*above, one.name)
        if one.is_dir():
            yield from _files(one, parts)
        else:
            yield parts


def _lines(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return sum(1 for line in text.splitlines() if line.strip() and json.loads(line) is not None)
    return sum(1 for line in text.splitlines() if line.strip())
