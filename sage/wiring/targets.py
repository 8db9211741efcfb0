"""What a TARGET on the command line names: a YAML file, or an environment in Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.errors import InvalidTopology, NotFound, SageError
from sage.graph.topology import Topology
from sage.spec.reference import exit_text, import_failure, resolve_reference

if TYPE_CHECKING:
    from sage.environments.local import LocalEnvironment

_YAML = (".yaml", ".yml")


def load_target(text: str, *, environ: Mapping[str, str]) -> Topology | LocalEnvironment:
    """Load ``rag.yaml``, ``file.py:attribute``, ``package.module:attribute``, or ``file.py`` with one environment.

    Raises:
        NotFound: there is no such file.
        InvalidTopology: what is there is no topology; all problems of a YAML file at once.
    """
    from sage.environments.local import LocalEnvironment

    if text.endswith(_YAML):
        from sage.graph.yaml import read_topology

        return read_topology(Path(text), environ=environ)
    if text.endswith(".py"):
        found: Any = _only_environment(text)
    elif ":" in text:
        found = resolve_reference(text, folder=Path.cwd())
    else:
        raise InvalidTopology(
            f"{text!r} is no target; give a .yaml file, file.py:attribute, or package.module:attribute"
        )
    if callable(found) and not isinstance(found, LocalEnvironment):
        found = _called(found, text)
    if not isinstance(found, LocalEnvironment | Topology):
        raise InvalidTopology(f"{text} is a {type(found).__name__}, not an environment or a function that gives one")
    return found


def _called(function: Any, text: str) -> Any:
    try:
        return function()
    except (SageError, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise InvalidTopology(f"{text}() {exit_text(error)}, and gave no environment") from error
    except BaseException as error:
        raise InvalidTopology(f"{text}() failed: {type(error).__name__}: {error}") from error


def _only_environment(text: str) -> Any:
    import runpy

    from sage.environments.local import LocalEnvironment

    path = Path(text)
    if not path.is_file():
        raise NotFound(f"no file {path} in {Path.cwd()}")
    try:
        found = runpy.run_path(str(path), run_name=path.stem)
    except (SageError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise import_failure(path.stem, error) from error
    names = [name for name, value in found.items() if isinstance(value, LocalEnvironment)]
    if len(names) != 1:
        what = f"it has {', '.join(names)}" if names else "it has none"
        raise InvalidTopology(f"{path} must have exactly one environment, or name one as {path}:name; {what}")
    return found[names[0]]
