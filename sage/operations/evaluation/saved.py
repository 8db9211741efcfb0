"""An evaluation in a file, for the next one to be compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sage.operations.evaluation.scoring import Evaluation, Result, result_dict
from sage.operations.result_files import no_result, read_result, write_result

_KIND: Final = "evaluation"
_MADE_BY: Final = "sage topology eval --save FILE"


def save(path: Path, found: Evaluation) -> None:
    """Write an evaluation with all its results. Raises SageError where the file can't be written."""
    write_result(path, _KIND, {**found.as_dict(), "results": [result_dict(result) for result in found.results]})


def load(path: Path) -> Evaluation:
    """A saved evaluation.

    Raises:
        NotFound: there is no such file.
        InvalidTopology: it is no saved evaluation (exit code 2).
    """
    document = read_result(path, _KIND, made_by=_MADE_BY)
    try:
        return Evaluation(
            document["topology"], document["version"], document["dataset"], document["digest"], document["seconds"],
            tuple(_result(fields) for fields in document["results"]),
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise no_result(path, f"{type(error).__name__}: {error}", made_by=_MADE_BY) from error


def _result(fields: dict[str, Any]) -> Result:
    return Result(**{**fields, "expected": tuple(fields["expected"])})
