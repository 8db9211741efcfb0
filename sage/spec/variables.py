"""``${VAR}`` and ``${VAR:-default}`` in configuration; ``$${`` writes a plain ``${``."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(
    r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<broken>\$\{[^}]*\}?)"
)


class UnsetVariable(Exception):  # noqa: N818 - becomes a MissingVariable where the place is known
    """A variable without a value and without a default; ``name`` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def resolve(text: str, environ: Mapping[str, str]) -> str:
    """``text`` with its variables replaced by their values.

    A default stands in for a variable that is unset or empty, as in a shell.

    Raises:
        UnsetVariable: a variable is not in ``environ`` and has no default.
        ValueError: something looks like a variable and is none.

    >>> resolve("http://${HOST:-localhost}:80", {})
    'http://localhost:80'
    """

    def value(match: re.Match[str]) -> str:
        if match["broken"] is not None:
            raise ValueError(
                f"{match['broken']!r} is not a variable; write ${{NAME}}, ${{NAME:-default}}, or $${{ for text"
            )
        name, default = match["name"], match["default"]
        if name is None:
            return "${"
        found = environ.get(name)
        if default is not None:
            return found or default
        if found is None:
            raise UnsetVariable(name)
        return found

    return _REFERENCE.sub(value, text)


def names_in(text: str) -> list[str]:
    """The variables that ``text`` refers to, each once, in order.

    >>> names_in("${A}/${B:-b}/$${C}/${A}")
    ['A', 'B']
    """
    return list(dict.fromkeys(name for match in _REFERENCE.finditer(text) if (name := match["name"])))


def escaped(text: str) -> str:
    """Text that ``resolve`` gives back as it was."""
    return text.replace("${", "$${")


def is_reference(text: str) -> bool:
    """Whether ``text`` is one variable and nothing else, no default either, as a secret must be to be shown."""
    match = _REFERENCE.fullmatch(text)
    return match is not None and match["name"] is not None and not match["default"]
