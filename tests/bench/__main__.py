"""``python -m tests.bench``: SAGE beside the bare client, in turn, on one Apache Kafka node."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from pathlib import Path

from sage.kafka.launchers.apache import ApacheKafka
from tests.bench.latency import measure_hop
from tests.bench.rate import load_input, measure

COMPARED = ("bare", "sage", "sage-three-maps")


def main() -> None:
    """Run all, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the latency run")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    with ApacheKafka() as cluster:
        servers = cluster.bootstrap_servers
        figures = run(servers, options.records, options.rounds, options.seconds)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def run(servers: str, records: int, rounds: int, seconds: float) -> dict[str, object]:
    """The figures; prints them as they come."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {records:,} records")
    source = load_input(servers, records)
    rates: dict[str, list[float]] = {name: [] for name in COMPARED}
    for number in range(1, rounds + 1):
        for name in COMPARED:
            rates[name].append(measure(name, servers, source, records))
            print(f"round {number}: {name:16} {rates[name][-1]:>10,.0f} records/s", flush=True)
    ratios = {}
    for name in COMPARED[1:]:
        pairs = [mine / bare for mine, bare in zip(rates[name], rates["bare"], strict=True)]
        ratios[name] = {"median": statistics.median(pairs), "least": min(pairs), "most": max(pairs)}
        print(f"{name}: {statistics.median(pairs):.0%} of the bare loop ({min(pairs):.0%} to {max(pairs):.0%})")
    hop = measure_hop(servers, seconds)
    print(f"one hop at 1,000 records/s: p50 {hop.p50:.1f} ms, p99 {hop.p99:.1f} ms ({hop.records:,} records)")
    return {"records": records, "rates": rates, "ratios": ratios, "hop_ms": {"p50": hop.p50, "p99": hop.p99}}


if __name__ == "__main__":
    main()
