"""Which source files a module's behaviour hangs on: its own, and those of its project that it imports, however far.

Found by reading, without importing anything, so that two machines with the same files find the same. What was installed
is left out: its version stands for it.
"""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
_OURS: Final = __name__.partition(".")[0]

_parsing: Final = threading.Lock()
"""Python 3.11 parses in one thread at a time, or fails with a SystemError about its recursion depth (gh-106905)."""


def source_files(module: ModuleType) -> dict[str, Path]:
    """Module name -> file, the module itself first; empty where it has no source.

    Of an installed module it is that file alone. A package is a project of its own; a module outside of packages
    belongs with the modules and packages beside it.
    """
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py"):
        return {}
    name, path = module.__name__, Path(file)
    found = {name: path}
    top, dot, _ = name.partition(".")
    if top == _OURS or top in sys.stdlib_module_names or _INSTALLED & set(path.parts):
        return found
    depth = name.count(".") + (path.name == "__init__.py")
    folder = path.parents[depth]
    within = top if dot or path.name == "__init__.py" else ""
    waiting = [name]
    while waiting:
        current = waiting.pop()
        for imported in _imports(current, found[current]):
            if imported in found or (within and imported.partition(".")[0] != within):
                continue
            if (source := _file_of(folder, imported)) is not None:
                found[imported] = source
                waiting.append(imported)
    return found


def _file_of(folder: Path, name: str) -> Path | None:
    place = folder.joinpath(*name.split("."))
    return next((each for each in (place.with_suffix(".py"), place / "__init__.py") if each.is_file()), None)


def _imports(name: str, file: Path) -> Iterator[str]:
    """Every name that may be a module in what a file imports, with the packages above it: those run as well."""
    try:
        with _parsing:
            tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # it was imported, so its own digest stands for it
        return
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = _base(package, node)
            yield from _with_parents(base)
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


def _base(package: str, node: ast.ImportFrom) -> str:
    """What ``from ... import`` starts at."""
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".") if name else []
    yield from (".".join(parts[: count + 1]) for count in range(len(parts)))
