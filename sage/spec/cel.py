"""Predicates written in CEL, the Common Expression Language: safe to take from a file, as they can only look.

See https://github.com/google/cel-spec. A predicate sees ``value``; the fields of an object under their own names
too; and ``key``, ``headers`` (by name, as text) and ``timestamp`` (milliseconds).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sage.errors import InvalidTopology, RecordFailure

if TYPE_CHECKING:
    from sage.spec.context import Context


class CelPredicate:
    """One compiled expression; called with (value, ctx).

    Raises:
        InvalidTopology: it is no CEL.
    """

    def __init__(self, expression: str, *, branch: str, where: str | None = None) -> None:
        import cel

        self.expression = expression
        self._branch = branch
        try:
            self._program = cel.compile(expression)
        except ValueError as error:
            raise InvalidTopology(f"{expression!r} is no CEL: {_one_line(error)}", where=where) from error

    def __call__(self, value: Any, ctx: Context) -> bool:
        """Whether the record is for this branch.

        Raises:
            RecordFailure: a field is missing, types don't fit, it divides by zero or overflows, or the result is
                neither true nor false.
        """
        names: dict[str, Any] = {}
        if isinstance(value, Mapping):
            names = {name: inner for name, inner in value.items() if isinstance(name, str) and name.isidentifier()}
        key = ctx.key
        names |= {
            "value": value,
            "key": key,
            "timestamp": ctx.timestamp,
            "headers": {name: (text or b"").decode(errors="replace") for name, text in ctx.headers},
        }
        try:
            result = self._program.execute(names)
        except KeyError as error:
            raise RecordFailure(
                f"branch {self._branch}: {self.expression!r}: there is no {_one_line(error)}; ask has() first"
            ) from error
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            raise RecordFailure(f"branch {self._branch}: {self.expression!r}: {_one_line(error)}") from error
        if not isinstance(result, bool):
            raise RecordFailure(
                f"branch {self._branch}: {self.expression!r} gives {result!r}; a predicate gives true or false"
            )
        return result


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
