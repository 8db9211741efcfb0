"""What Python prints of an error that a program does not catch: the program's own lines, and one clear sentence."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sage.errors import SageError

DEBUG = "SAGE_DEBUG"
"""The variable that, set to anything but ``0``, keeps SAGE's own frames and the causes of its errors."""

P = ParamSpec("P")
R = TypeVar("R")


def short_traceback(function: Callable[P, R]) -> Callable[P, R]:
    """Raise the function's SageErrors without the frames below it and without their causes.

    A message says what to do; thirty lines of the planner above it don't.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except SageError as error:
            if os.environ.get(DEBUG, "0") not in {"", "0"}:
                raise
            raise error.with_traceback(None) from None

    return called
