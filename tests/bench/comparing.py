"""Programs in turn over the same records, and their ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.rate import PEER_PROGRAMS, PEERS, Rate, load_input, measure


@dataclass(frozen=True)
class Comparison:
    """Programs that do the same work.

    Attributes:
        bases: those of them that the others are compared with; the first is run once more before all, to warm up.
        share: of the records that there are to be.
        slow: programs of which so much of that is enough: their rate is that of the first records of the same topic.
    """

    title: str
    programs: tuple[str, ...]
    bases: tuple[str, ...]
    share: float = 1.0
    slow: Mapping[str, float] = field(default_factory=dict)

    def records(self, program: str, records: int) -> int:
        """How many ``program`` is to process."""
        return int(records * self.slow.get(program, 1.0))


COMPARISONS = (
    Comparison(
        "JSON map",
        ("bare", "sage", "sage-exactly-once", "sage-three-maps", "sage-two-processes", "quix", "faust"),
        bases=("bare", "quix", "faust"),
        slow={"quix": 0.5, "faust": 0.03},
    ),
    Comparison(
        "keyed count with state and changelog",
        ("sage-count", "sage-count-exactly-once", "quix-count"),
        bases=("quix-count",),
        share=0.4,
    ),
)


def compare(comparison: Comparison, servers: str, records: int, rounds: int, figures: dict[str, Any]) -> None:
    """Run one comparison; adds to ``rates`` and ``ratios``."""
    programs = [name for name in comparison.programs if name not in PEER_PROGRAMS or PEERS.exists()]
    print(f"\n{comparison.title}, {records:,} records")
    for name in set(comparison.programs) - set(programs):
        print(f"NOT COMPARED with {name}: no {PEERS.parents[1].name}; `make bench` makes it where a registry answers")
    source = load_input(servers, records)
    measure(programs[0], servers, source, records)
    found: dict[str, list[Rate]] = {name: [] for name in programs}
    for number in range(1, rounds + 1):
        for name in programs:
            rate = measure(name, servers, source, comparison.records(name, records))
            found[name].append(rate)
            print(f"round {number}: {name:24} {rate.per_second:>10,.0f} records/s {rate.cpu_us:>7.2f} us", flush=True)
    figures["rates"][comparison.title] = {name: _spread([r.per_second for r in rates]) for name, rates in found.items()}
    for name, rates in found.items():
        figures["rates"][comparison.title][name]["cpu_us"] = statistics.median(rate.cpu_us for rate in rates)
    for base in comparison.bases:
        for name in [name for name in programs if name not in comparison.bases and base in found]:
            figures["ratios"][f"{name}/{base}"] = _ratio(name, base, found)


def _ratio(name: str, base: str, found: dict[str, list[Rate]]) -> dict[str, float]:
    pairs = list(zip(found[name], found[base], strict=True))
    ratio = _spread([mine.per_second / its.per_second for mine, its in pairs])
    ratio["cpu"] = statistics.median(its.cpu_us / mine.cpu_us for mine, its in pairs)
    spread = f"{ratio['least']:.2f} to {ratio['most']:.2f}"
    print(f"{name}: {ratio['median']:.2f} of {base} ({spread}); by processor time {ratio['cpu']:.2f}")
    return ratio


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}
