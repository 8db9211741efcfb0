"""``sage demo crash``: what it prints is what Kafka and the model server have counted."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from sage.kafka.launchers.apache import missing_tools
from sage.operations.crash import CHECKS, COUNTED, FEWEST, FIRST, SECOND
from tests.integration.cli.conftest import Shell

_WITHOUT_KAFKA = missing_tools()
on_apache_kafka = pytest.mark.skipif(
    _WITHOUT_KAFKA is not None, reason=f"NO TAKEOVER BY ANOTHER WORKER TESTED WITHOUT APACHE KAFKA: {_WITHOUT_KAFKA}"
)


@on_apache_kafka
def test_a_killed_worker_loses_no_question_and_buys_no_answer_twice(tmp_path: Path) -> None:
    done = Shell(tmp_path)("demo", "crash", "--folder", "here", "--questions", "12", "-o", "json", timeout=420)
    assert done.code == 0, done.err
    assert "export SAGE_BOOTSTRAP_SERVERS=" in done.err
    assert re.search(rf"^kill -9 {FIRST} at \d+ answers \.\.\.\n{SECOND} took over after ", done.err, re.MULTILINE)
    found = json.loads(done.out)
    assert (found["asked"], found["answered"], found["lost"], found["twice"]) == (12, 12, 0, 0)
    assert found["dead"] == 0
    assert found["calls"] - found["asked"] <= 1, "the server answers one at a time: only that call was under way"
    assert found["takeover"] > 0
    typed = [line[2:] for line in done.err.splitlines() if line.startswith("$ ")]
    counts = [f"sage {' '.join(count)} | wc -l" for count in COUNTED]
    assert typed[-6:-1] == [*counts, *(f"sage {' '.join(check)}" for check in CHECKS)], "Kafka is asked while it runs"
    questions, answers, journal = (int(done.err.split(f"$ {count}\n")[1].split("\n")[0]) for count in counts)
    assert (questions, answers) == (12, 12)
    assert journal >= 12
    assert typed[-1] == "sage down"
    assert "no dead letters" in done.err or "[]" in done.err
    assert "sage demo crash --keep-up" in done.err
    assert not (tmp_path / "here" / "handbook" / ".sage" / "up.json").exists()


@on_apache_kafka
def test_with_keep_up_what_is_printed_counts_the_same_in_the_brokers_that_stay(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    done = shell("demo", "crash", "--folder", "here", "--keep-up", "--questions", "12", timeout=420)
    project = Shell(tmp_path / "here" / "handbook")
    stop = re.search(r"To stop it all: sage down(?: && kill (\d+))?\n", done.out)
    try:
        assert done.code == 0, done
        assert stop is not None, done.out
        assert f"\n{SECOND} took over after " in done.out
        address = re.search(r"  export SAGE_BOOTSTRAP_SERVERS=(\S+)\n", done.out)
        assert address is not None, done.out
        project.variables["SAGE_BOOTSTRAP_SERVERS"] = address[1]
        tails = re.findall(r"  sage (topics tail \S+ --from-beginning -o json) \| wc -l\n", done.out)
        questions, answers, journal = (project(*words.split()).out.count("\n") for words in tails)
        assert (questions, answers) == (12, 12)
        assert journal >= 12
        for check in CHECKS:
            assert f"\n  sage {' '.join(check)}\n" in done.out
            assert project(*check).code == 0
    finally:
        project("down")
        if stop is not None and stop[1]:
            os.kill(int(stop[1]), signal.SIGTERM)


def test_without_apache_kafka_it_says_that_the_same_worker_goes_on(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    folders = os.environ["PATH"].split(os.pathsep)
    shell.variables["PATH"] = os.pathsep.join(each for each in folders if not Path(each, "java").exists())
    done = shell("demo", "crash", "--folder", "here", "--questions", str(FEWEST), "-o", "json", timeout=420)
    assert done.code == 0, done.err
    assert re.search(rf"^{FIRST} went on after .* \(on Apache Kafka the other takes over\)$", done.err, re.MULTILINE)
    assert "took over" not in done.err
    found = json.loads(done.out)
    assert (found["asked"], found["answered"], found["lost"], found["dead"]) == (FEWEST, FEWEST, 0, 0)
