"""What is judged of several rounds."""

from __future__ import annotations

import pytest

from tests.bench import __main__ as bench
from tests.bench import goals
from tests.bench.latency import HopLatency
from tests.bench.report import tables


def test_one_good_round_does_not_make_a_hop_quick_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"bare": iter((9.0, 8.0, 17.0)), "sage": iter((14.0, 18.0, 16.0))}
    monkeypatch.setattr(bench, "measure_hop", lambda program, *_: HopLatency(1.5, next(measured[program]), 10_000))
    figures = {"hop_ms": bench._hops("nobody:9092", 10.0, 3)}
    assert (figures["hop_ms"]["bare"]["p99"], figures["hop_ms"]["sage"]["p99"]) == (9.0, 16.0)
    assert [one["p99"] for one in figures["hop_ms"]["sage"]["rounds"]] == [14.0, 18.0, 16.0], "all rounds are kept"
    verdicts = {verdict["what"]: verdict["met"] for verdict in goals.verdicts(figures)}
    assert verdicts == {"one hop, p50": True, "one hop, p99": False}
    assert "| sage | 1.5 ms (1.5 to 1.5) | 16.0 ms (14.0 to 18.0) |" in tables(figures)
