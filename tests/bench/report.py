"""The figures as tables in Markdown, as ``docs/benchmarks.md`` has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.bench.goals import GOALS, value_of


def tables(figures: Mapping[str, Any]) -> str:
    """All that was measured."""
    parts = [*_rates(figures), *_waiting(figures), *_goals(figures)]
    return "\n".join(parts) + "\n"


def _rates(figures: Mapping[str, Any]) -> Iterator[str]:
    for title, programs in figures.get("rates", {}).items():
        yield from (f"{title}:", "", "| program | records/s (median; least to most) | processor time a record |")
        yield "|---|---|---|"
        for name, rate in programs.items():
            spread = f"{rate['median'] / 1e3:.1f}k ({rate['least'] / 1e3:.1f}k to {rate['most'] / 1e3:.1f}k)"
            yield f"| {name} | {spread} | {rate['cpu_us']:.1f} us |"
        yield ""
    if figures.get("ratios"):
        yield from ("| ratio | of the rates (median; least to most) | of the processor time |", "|---|---|---|")
        for name, ratio in figures["ratios"].items():
            spread = f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"
            yield f"| {name.replace('/', ' / ')} | {spread} | {ratio['cpu']:.2f} |"
        yield ""


def _waiting(figures: Mapping[str, Any]) -> Iterator[str]:
    if "async" in figures:
        yield from ("| calls of 100 ms, 1,000 at once | records/s | of the ideal | processor time a record |",)
        yield "|---|---|---|---|"
        for name, found in figures["async"].items():
            yield f"| {name} | {found['rate']:,.0f} | {found['of_ideal']:.0%} | {found['cpu_us']:.1f} us |"
        yield ""
    if "hop_ms" in figures:
        yield from ("| one hop at 1,000 records/s | p50 (median; least to most) | p99 |", "|---|---|---|")
        for name, found in figures["hop_ms"].items():
            yield f"| {name} | {_milliseconds(found, 'p50')} | {_milliseconds(found, 'p99')} |"
        yield ""


def _milliseconds(found: Mapping[str, Any], quantile: str) -> str:
    rounds = [one[quantile] for one in found["rounds"]]
    return f"{found[quantile]:.1f} ms ({min(rounds):.1f} to {max(rounds):.1f})"


def _goals(figures: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| what | found | goal | |", "|---|---|---|---|")
    for goal in GOALS:
        value = value_of(goal, figures)
        if value is not None:
            bound = f"{'at least' if goal.is_least else 'at most'} {goal.bound:g}{goal.unit}"
            yield f"| {goal.what} | {value:.2f}{goal.unit} | {bound} | {'met' if goal.is_met(value) else 'missed'} |"
