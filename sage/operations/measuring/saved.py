"""Figures in a file, and two of them side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sage.operations.measuring.figures import Figures, Latency
from sage.operations.result_files import no_result, read_result, write_result

_KIND: Final = "bench"
_MADE_BY: Final = "sage bench run --save FILE"


def save(path: Path, found: Figures) -> None:
    """Write figures. Raises SageError where the file can't be written."""
    write_result(path, _KIND, found.as_dict())


def load(path: Path) -> Figures:
    """Saved figures.

    Raises:
        NotFound: there is no such file.
        InvalidTopology: it holds something else (exit code 2).
    """
    document = read_result(path, _KIND, made_by=_MADE_BY)
    try:
        latency = document.pop("latency")
        return Figures(**document, latency=None if latency is None else Latency(**latency))
    except (KeyError, TypeError) as error:
        raise no_result(path, f"{type(error).__name__}: {error}", made_by=_MADE_BY) from error


@dataclass(frozen=True, slots=True)
class Ratio:
    """One measure of two runs.

    Attributes:
        measure: its name, with its unit.
        first, second: the values; ``None`` where a run has none.
        ratio: the second by the first; ``None`` where there is none.
        is_worse: whether the second is worse than allowed; never so of what is not judged.
    """

    measure: str
    first: float | None
    second: float | None
    ratio: float | None
    is_worse: bool = False


_MORE_IS_BETTER: Final = frozenset({"records/s"})

_NOT_JUDGED: Final = frozenset({"latency p99 ms", "memory MiB"})
"""Of one run each they say too little: a single pause of the machine is in them."""


def compare(first: Figures, second: Figures, max_slowdown: float) -> list[Ratio]:
    """The measures of two runs.

    Args:
        first, second: the runs; the second is judged.
        max_slowdown: the share by which it may be worse: of 0.1, a tenth fewer records a second, or a tenth more time.
    """
    before, now = _measures(first), _measures(second)
    ratios = [_ratio(name, before[name], now[name], max_slowdown) for name in before]
    dead = Ratio("dead letters", first.dead, second.dead, None, second.dead > first.dead)
    return [*ratios, dead]


def differences(first: Figures, second: Figures) -> list[str]:
    """Why two runs did not measure the same; empty where they did. Code and options may differ: that is what is
    compared."""
    found = []
    if first.topology != second.topology:
        found.append(f"topology {first.topology} and {second.topology}")
    elif first.graph != second.graph:
        found.append("other steps")
    if first.input_digest != second.input_digest:
        found.append(f"other input ({first.input} and {second.input})")
    for name in ("records", "rate", "processes", "guarantee"):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            found.append(f"{name} {_shown(one)} and {_shown(other)}")
    return found


def other_machine(first: Figures, second: Figures) -> list[str]:
    """What was different around the two runs."""
    names = [name for name in first.machine if name != "sage" and first.machine[name] != second.machine.get(name)]
    return [f"{name} {first.machine[name]} and {second.machine.get(name)}" for name in names]


def _measures(found: Figures) -> dict[str, float | None]:
    latency: dict[str, Any] = {} if found.latency is None else found.latency._asdict()
    return {
        "records/s": found.records_per_second,
        **{f"latency {name} ms": latency.get(name) for name in Latency._fields},
        "processor us/record": found.processor_us,
        "memory MiB": found.memory_mib,
    }


def _ratio(name: str, first: float | None, second: float | None, allowed: float) -> Ratio:
    if not first or second is None:
        return Ratio(name, first, second, None)
    ratio = second / first
    worse = ratio < 1 - allowed if name in _MORE_IS_BETTER else ratio > 1 + allowed
    return Ratio(name, first, second, ratio, worse and name not in _NOT_JUDGED)


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
