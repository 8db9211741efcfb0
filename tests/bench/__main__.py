"""``python -m tests.bench``: SAGE beside the bare client and, where installed, other libraries, in turn.

All programs of a comparison do the same work on the same records, one after the other, in several rounds; a ratio is
of two runs of one round, so that what the machine does otherwise weighs on both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

from sage.kafka.launchers.apache import ApacheKafka
from tests.bench import goals
from tests.bench.comparing import COMPARISONS, compare
from tests.bench.latency import measure_hop
from tests.bench.memory import measure_memory
from tests.bench.plot import bars
from tests.bench.programs import CALL, CONCURRENCY
from tests.bench.rate import load_input, measure
from tests.bench.report import tables
from tests.bench.startup import measure_help
from tests.bench.takeover import measure_takeover

PARTS = ("rates", "async", "hop", "takeover", "memory", "help")
HOP_PROGRAMS = ("bare", "sage")


def main() -> None:
    """Run all, print tables and goals, write the figures and a plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one latency run")
    parser.add_argument("--minutes", type=float, default=1.0, help="of the memory run")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for what is written")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with ApacheKafka(as_shipped=True) as cluster:
        figures = run(cluster.bootstrap_servers, options)
    figures["goals"] = goals.verdicts(figures)
    text = tables(figures)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (options.out / "figures.md").write_text(text, encoding="utf-8")
    (options.out / "rates.svg").write_text(bars(figures["rates"]), encoding="utf-8")
    print(f"\n{text}\nwritten: {options.out}/figures.json, figures.md, rates.svg")


def run(servers: str, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of the parts that are asked for; prints them as they come."""
    figures: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "rates": {}, "ratios": {}}
    if "rates" in options.only:
        for comparison in COMPARISONS:
            compare(comparison, servers, int(options.records * comparison.share), options.rounds, figures)
    if "async" in options.only:
        figures["async"] = _asynchronous(servers)
    if "hop" in options.only:
        figures["hop_ms"] = _hops(servers, options.seconds, options.rounds)
    if "takeover" in options.only:
        figures["takeover_s"] = {}
        for guarantee in ("at_least_once", "exactly_once"):
            took = figures["takeover_s"][guarantee] = measure_takeover(servers, guarantee)
            print(f"takeover after kill -9, {guarantee}: {took:.1f} s until the next output (session time-out 6 s)")
    if "memory" in options.only:
        held = measure_memory("sage-count", servers, options.minutes)
        figures["memory"] = {**held._asdict(), "growth": held.growth, "minutes": options.minutes}
        print(
            f"memory of a keyed count over {options.minutes:g} minutes, {held.records:,} records: "
            f"{held.settled:.0f} MiB in the second quarter of it, {held.last:.0f} in the last, {held.most:.0f} at most"
        )
    if "help" in options.only:
        figures["help_ms"] = measure_help()
        print(f"sage --help: {figures['help_ms']:.0f} ms")
    return figures


def _asynchronous(servers: str) -> dict[str, dict[str, float]]:
    """Calls that wait: beside the ideal, and beside what a bare event loop makes of it."""
    ideal = CONCURRENCY / CALL
    source = load_input(servers, 80_000)
    found: dict[str, dict[str, float]] = {}
    print(f"\ncalls of {CALL * 1e3:.0f} ms, {CONCURRENCY:,} at once")
    for program in ("bare-async", "sage-async"):
        rate = measure(program, servers, source, 80_000)
        found[program] = {"rate": rate.per_second, "of_ideal": rate.per_second / ideal, "cpu_us": rate.cpu_us}
        share = found[program]["of_ideal"]
        print(f"{program:12} {rate.per_second:>9,.0f} records/s, {share:.0%} of ideal, {rate.cpu_us:.1f} us")
    return found


def _hops(servers: str, seconds: float, rounds: int) -> dict[str, dict[str, Any]]:
    """The medians over the rounds of each program, in turn, and what they are of."""
    found: dict[str, list[dict[str, float]]] = {program: [] for program in HOP_PROGRAMS}
    print("\none hop at 1,000 records/s")
    for number in range(1, rounds + 1):
        for program in HOP_PROGRAMS:
            hop = measure_hop(program, servers, seconds)
            found[program].append({"p50": hop.p50, "p99": hop.p99})
            print(f"round {number}: {program:6} p50 {hop.p50:.1f} ms, p99 {hop.p99:.1f} ms", flush=True)
    return {
        program: {**{name: statistics.median(one[name] for one in each) for name in ("p50", "p99")}, "rounds": each}
        for program, each in found.items()
    }


if __name__ == "__main__":
    main()
