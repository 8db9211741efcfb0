"""Wall clocks that jump or differ: a record that waits for its next try waits no longer than its policy allows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.runtime.acting import turn
from tests.unit.runtime.bench import Bench

RETRY: Any = {"attempts": 10, "backoff": "1s", "max_backoff": "4s"}
HOUR = 3_600_000


class Flaky:
    """Fails while it is down."""

    def __init__(self) -> None:
        self.is_down = True

    def plain(self, value: str) -> str:
        if self.is_down and value == "a1":
            raise ConnectionError("down")
        return value

    async def waiting(self, value: str) -> str:
        return self.plain(value)


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
@pytest.mark.parametrize("kind", ["plain", "waiting"])
def test_a_clock_that_jumps_keeps_no_parked_record_from_its_next_try(kind: str, jump: int) -> None:
    flaky = Flaky()
    options: Any = {"ordering": "key"} if kind == "plain" else {"ordering": "none", "concurrency": 4}
    bench = Bench(lambda s: s.map(getattr(flaky, kind), name="work", retry=RETRY, **options))
    first = bench.actor()
    bench.feed("a1", "b1", "a2", keys=[b"a", b"b", b"a"])
    turn(bench, first, seconds=0.1, times=2)
    first.stop(1.0)
    first.run(lambda _: None)
    flaky.is_down = False
    bench.clock._start_ms += jump  # or it is another machine's
    turn(bench, bench.actor(), seconds=0.1, times=60)
    assert sorted(bench.out()) == ["a1", "a2", "b1"]
