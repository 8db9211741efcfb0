"""Which dead letters a person means: ``--filter step=generate``, ``--filter 'error=*Timeout*'``, or a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sage.errors import UnknownName
from sage.operations.dead_letters import Letter

_FIELDS: dict[str, Callable[[Letter], str]] = {
    "step": lambda letter: letter.step,
    "stage": lambda letter: letter.stage,
    "error": lambda letter: letter.error,
    "message": lambda letter: letter.message,
    "source": lambda letter: letter.source,
    "key": lambda letter: letter.record["key"] or "",
}


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """All of ``conditions`` must hold; none at all lets every letter through.

    Attributes:
        conditions: (field, pattern) pairs as typed: ``*`` and ``?`` stand for any text and any character. An empty
            field is a text that the reason holds somewhere, in whatever case.
    """

    conditions: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str]) -> LetterFilter:
        """What was typed after each ``--filter``.

        Raises:
            UnknownName: there is no field of that name.
        """
        conditions = []
        for text in texts:
            name, found, pattern = text.partition("=")
            if found and name.isidentifier():
                if name not in _FIELDS:
                    raise UnknownName(f"--filter {text}: no field {name!r}; there are {', '.join(_FIELDS)}")
                conditions.append((name, pattern))
            else:
                conditions.append(("", text.lower()))
        return cls(tuple(conditions))

    def matches(self, letter: Letter) -> bool:
        """Whether every condition holds."""
        return all(
            fnmatchcase(_FIELDS[name](letter), pattern) if name else pattern in _reason(letter)
            for name, pattern in self.conditions
        )


def _reason(letter: Letter) -> str:
    return f"{letter.step} {letter.error}: {letter.message}".lower()
