"""Scenarios at random, one after the other: ``make chaos``. CHAOS_MINUTES says how long, CHAOS_SEED where to begin.

Seeds that follow each other go through every kind of stage under both guarantees, and each of these through all
blows, three in a round.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import sys
import tempfile
import time
import traceback
import uuid
from pathlib import Path

from tests.chaos.blows import BROKERS, WORKERS, attack
from tests.chaos.scenario import Scenario, judge
from tests.chaos.worker import KINDS
from tests.support.brokers import ApacheBroker, start_apache

GUARANTEES = ("at_least_once", "exactly_once")
PAIRS = tuple(itertools.product(KINDS, GUARANTEES))
BLOWS = {**WORKERS, **BROKERS}
BLOWS_A_ROUND = 3
TIMED = {"timer", "async-timer"}
"""Kinds that go by the wall clock: a jump of an hour would put their timers an hour off, and rightly."""


def drawn(seed: int) -> tuple[str, str, list[str]]:
    """The kind, the guarantee and the blows of a seed."""
    cycle, pair = divmod(seed, len(PAIRS))
    kind, guarantee = PAIRS[pair]
    fitting = sorted(blow for blow in BLOWS if blow != "clocks" or kind not in TIMED)
    order = random.Random(pair).sample(fitting, len(fitting))
    return kind, guarantee, [order[(BLOWS_A_ROUND * cycle + number) % len(order)] for number in range(BLOWS_A_ROUND)]


def one_round(broker: ApacheBroker, seed: int) -> str:
    """One scenario; how it went. Raises AssertionError with its seed."""
    kind, guarantee, blows = drawn(seed)
    choice = random.Random(seed)
    workers, records = choice.randint(2, 3), choice.randint(600, 4_000)
    with tempfile.TemporaryDirectory(prefix="sage-chaos-") as folder:
        scenario = Scenario(
            broker, f"c{uuid.uuid4().hex[:8]}", kind, guarantee, Path(folder), seed, workers=workers,
            records=records, replicas=3,
        )  # fmt: skip
        try:
            scenario.feed()
            for blow in blows:
                attack(scenario, 1, BLOWS[blow])
            found = scenario.reckon(180)
            judge(found, scenario)
        except Exception:
            keep(scenario, seed)
            raise
        finally:
            scenario.close()
    return f"{scenario.records} records, {found.doubled} doubled, none lost"


def keep(scenario: Scenario, seed: int) -> None:
    """What the workers wrote, for whoever looks into the failure."""
    folder = Path("build") / "chaos"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{seed}.log").write_text(scenario.logs(1_000_000))


def main() -> int:
    logging.basicConfig(level=logging.ERROR)  # what clients say of brokers that are away is no news here
    minutes = float(os.environ.get("CHAOS_MINUTES", "30"))
    seed = int(os.environ.get("CHAOS_SEED", str(time.time_ns() % 1_000_000)))
    end, rounds, failed = time.monotonic() + 60 * minutes, 0, 0
    broker = start_apache(3)
    try:
        while time.monotonic() < end:
            rounds, began = rounds + 1, time.monotonic()
            kind, guarantee, blows = drawn(seed)
            what = f"seed {seed}: {kind}, {guarantee}, {' + '.join(blows)}"
            try:
                told = one_round(broker, seed)
            except Exception as error:
                failed += 1
                told = f"FAILED: {error}" if isinstance(error, AssertionError) else traceback.format_exc()
            print(f"{what}: {told} ({time.monotonic() - began:.0f} s)", flush=True)
            broker.cluster.start_all()  # also what a round that failed left dead
            seed += 1
    finally:
        broker.cluster.stop()
    print(f"{rounds} rounds, {failed} failed. CHAOS_SEED=N CHAOS_MINUTES=0.1 make chaos repeats one.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
