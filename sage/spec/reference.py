"""References: the text by which YAML and other processes find a function or class, and the way back.

A reference is ``package.module:attribute`` or, for code beside a YAML file, ``file.py:attribute``.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from sage.errors import InvalidTopology, UnknownName
from sage.spec.suggest import hint, nearest

_REFERENCE = re.compile(r"(?P<module>[\w./\\~ -]+):(?P<attribute>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")

_PYTHONS_OWN = sysconfig.get_path("stdlib")

_loaded_from_folder: dict[str, Path] = {}
"""Top-level modules that were imported from a topology's folder, and the folder: another folder may have its own."""


def is_reference(text: str) -> bool:
    """Whether ``text`` has the shape of a reference."""
    return _REFERENCE.fullmatch(text) is not None


def reference_of(target: Any) -> str:
    """The reference of a function or class; empty where other processes can't import it.

    That is so for lambdas, locals, what lives in ``__main__``, and everything that its module doesn't
    hold under its own name.

    >>> import json
    >>> reference_of(json.dumps), reference_of(lambda value: value)
    ('json:dumps', '')
    """
    module = getattr(target, "__module__", None)
    name = getattr(target, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or "<" in name:
        return ""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is target else ""


def resolve_reference(text: str, *, folder: Path | None = None) -> Any:
    """What a reference names. A module is looked for in ``folder`` first, then on Python's path.

    Raises:
        UnknownName: there is no such module, file or attribute.
        InvalidTopology: ``text`` is no reference, or importing its module fails.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise InvalidTopology(f"{text!r} is not a reference; write package.module:name or file.py:name")
    place, attribute = match["module"], match["attribute"]
    module = _module_of_file(place, folder) if place.endswith(".py") else _module(place, folder)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UnknownName(f"{place} has no {part}; {_near(part, found)}")
        found = getattr(found, part)
    return found


def _near(missing: str, found: Any) -> str:
    """What may have been meant by a name that ``found`` does not have, or what it does have."""
    public = {name: value for name, value in getattr(found, "__dict__", {}).items() if not name.startswith("_")}
    close = nearest(missing, public)
    if close is not None:
        return f"did you mean {close}?"
    if not isinstance(found, ModuleType):
        return hint(missing, public, what="it has") if public else "it has none"
    own = [name for name, value in public.items() if _is_own(value, found)]
    return hint(missing, own, what="it has") if own else "it has no function, class or environment of its own"


def _is_own(value: Any, module: ModuleType) -> bool:
    """Whether a reference could mean it: a function or class that the module defines, or an environment."""
    if isinstance(value, type) or inspect.isroutine(value):
        return getattr(value, "__module__", None) == module.__name__
    # Told by what it can do: environments are built on this layer.
    return callable(getattr(type(value), "submit", None))


def _module_of_file(place: str, folder: Path | None) -> ModuleType:
    path = Path(place).expanduser()
    path = (folder or Path.cwd()) / path if not path.is_absolute() else path
    if not path.is_file():
        others = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UnknownName(f"there is no file {path}; {hint(path.name, others, what='files there')}")
    if not path.stem.isidentifier():
        raise InvalidTopology(f"{path.name} can't be imported: rename it to letters, digits and _")
    return _module(path.stem, path.parent)


def _module(name: str, folder: Path | None) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise InvalidTopology(f"{name!r} is not a module's name; write package.module:name or file.py:name")
    top = name.partition(".")[0]
    try:
        if folder is not None:
            _prefer(top, folder.resolve())
        return importlib.import_module(name)
    except (InvalidTopology, KeyboardInterrupt):
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise InvalidTopology(f"importing {name} failed: no module named {error.name}") from error
        known = [path.stem for path in folder.glob("*.py")] if folder is not None and folder.is_dir() else []
        looked = "on the Python path" if folder is None else f"in {folder} and on the Python path"
        near = f"; {hint(error.name, known, what='modules there')}" if known else ""
        raise UnknownName(f"no module named {error.name} {looked}{near}") from error
    except BaseException as error:
        raise import_failure(name, error) from error


def import_failure(name: str, error: BaseException) -> InvalidTopology:
    """What is told of an ``error`` that came out of user code while it was imported; its sys.exit() is one too: nothing
    was loaded then, however well the program thinks that it ended."""
    if isinstance(error, SystemExit):
        ended = f'importing {name} {exit_text(error)}; put that under if __name__ == "__main__":'
        return InvalidTopology(f"{ended}{_line_of(error, is_users_file)}")
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}" if error.filename else name
        return InvalidTopology(f"importing {name} failed: {place}: {error.msg}")
    return InvalidTopology(f"importing {name} failed: {type(error).__name__}: {error}{_line_of(error)}")


def exit_text(error: SystemExit) -> str:
    """What user code did that raised it."""
    return f"ended the program (sys.exit({'' if error.code is None else repr(error.code)}))"


def _line_of(error: BaseException, counts: Callable[[str], bool] = lambda _: True) -> str:
    """Where user code raised while it was imported: the innermost frame in a file that ``counts``."""
    found, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if counts(file):
            found = f" ({file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found


def is_users_file(file: str) -> bool:
    """Whether a file is not Python's own: exit(), and argparse for wrong arguments, end programs from there."""
    return not file.startswith(("<frozen", _PYTHONS_OWN)) or "site-packages" in file


def _prefer(top: str, folder: Path) -> None:
    """Make ``import top`` give the folder's own module, if it has one."""
    importlib.invalidate_caches()  # the file may be younger than the import system's view of its folder
    spec = importlib.machinery.PathFinder.find_spec(top, [str(folder)])
    if spec is None or spec.loader is None:  # not there, or a mere folder of that name
        return
    # At the end: the folder's other modules can be imported by its code, and none of them hides a library.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    present = sys.modules.get(top)
    if present is not None:
        if _same_file(getattr(present, "__file__", None), spec.origin):
            return
        if top not in _loaded_from_folder:
            raise InvalidTopology(
                f"module {top} is taken: {getattr(present, '__file__', None) or 'built in'} is loaded, "
                f"and {spec.origin} has the same name; rename the file"
            )
        for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
            del sys.modules[name]
    module = importlib.util.module_from_spec(spec)
    sys.modules[top] = module
    _loaded_from_folder[top] = folder
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[top]
        raise


def _same_file(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and Path(one).resolve() == Path(other).resolve()
