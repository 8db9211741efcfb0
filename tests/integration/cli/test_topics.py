"""Topics and dead letters over the real embedded broker."""

from __future__ import annotations

import json
import signal
import uuid

import pytest

from tests.integration.cli.conftest import Shell
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(with_broker: Shell) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    made = with_broker("topics", "create", name, "-p", "2", "-c", "retention.ms=-1")
    assert made.out == f"made {name} with 2 partitions\n", made.err
    return name


def test_what_is_produced_is_tailed(with_broker: Shell, topic: str) -> None:
    done = with_broker(
        "topics", "produce", topic, "--key-separator", ":", "-H", "h=1", stdin='k:{"a": 1}\nk:{broken\nplain\n'
    )
    assert (done.code, done.out) == (0, f"3 records to {topic}\n")
    lines = [json.loads(line) for line in with_broker("topics", "tail", topic, "-o", "json").out.splitlines()]
    keyed = [one for one in lines if one["key"] == "k"]
    assert [one["value"] for one in keyed] == [{"a": 1}, "{broken"]
    assert len({one["partition"] for one in keyed}) == 1
    assert all(one["headers"] == [["h", "1"]] for one in lines)
    wide = with_broker("topics", "tail", topic, "-n", "1", "-o", "wide").out
    assert "h=1" in wide


def test_a_topic_is_listed_and_described(with_broker: Shell, topic: str) -> None:
    assert with_broker("topics", "produce", topic, "a", "b", "-k", "x", "-q").code == 0
    listed = {row["name"]: row for row in json.loads(with_broker("topics", "list", "-o", "json").out)}
    assert (listed[topic]["partitions"], listed[topic]["records"]) == (2, 2)
    found = json.loads(with_broker("topics", "describe", topic, "-o", "json").out)
    assert sum(one["records"] for one in found["partitions"]) == 2
    assert with_broker("topics", "describe", topic).out.splitlines()[0].split() == [
        "PARTITION", "START", "END", "RECORDS", "LAG",
    ]  # fmt: skip


def test_making_it_again_changes_nothing(with_broker: Shell, topic: str) -> None:
    again = with_broker("topics", "create", topic, "-p", "7", "-o", "json")
    assert (again.code, json.loads(again.out)) == (0, {"topic": topic, "created": False})


def test_following_ends_with_ctrl_c(with_broker: Shell, topic: str) -> None:
    process = with_broker.start("topics", "tail", topic, "-f", "-o", "json")
    try:
        assert process.stdout is not None
        assert with_broker("topics", "produce", topic, "now").code == 0
        assert json.loads(process.stdout.readline())["value"] == "now"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "interrupted\n"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("words", [("tail", "nope"), ("describe", "nope"), ("produce", "nope", "x")])
def test_a_topic_that_is_not_there_is_4(with_broker: Shell, words: tuple[str, ...]) -> None:
    found = with_broker("topics", *words)
    assert found.code == 4
    assert found.err.startswith("topic nope: does not exist; ")
    assert found.err.rstrip().endswith("[SAGE203]")


def test_brokers_come_from_the_option_then_the_variable_then_the_folder(with_broker: Shell, topic: str) -> None:
    (row,) = json.loads(with_broker("status", "-o", "json").out)
    address = f"127.0.0.1:{row['port']}"
    elsewhere = Shell(with_broker.folder.parent, {"SAGE_BOOTSTRAP_SERVERS": address})
    assert topic in elsewhere("topics", "list").out
    other = Shell(with_broker.folder.parent, {"SAGE_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert topic in other("topics", "list", "--bootstrap-servers", address).out
    none = Shell(with_broker.folder.parent)("topics", "list")
    assert none.code == 4
    assert "sage up" in none.err


def test_dead_letters_are_listed_and_shown(with_broker: Shell) -> None:
    shell = Shell(with_broker.folder)
    shell.write("in.txt", '{"query": "?", "id": "1"}\nplain\n')
    shell.write(
        "dead.yaml",
        "version: 1\nname: dead\nsteps:\n"
        "  lines: {source: file, config: {path: in.txt, format: jsonl}}\n"
        "  prompt: {operator: qa_promptor, from: lines}\n"
        "  out: {sink: topic, from: prompt, config: {topic: dead-out}}\n",
    )
    shell.write("in.txt", '{"query": "?", "id": "1"}\n{"query": "??", "id": "2"}\n')
    run = shell("topology", "run", "dead.yaml", "--until-idle")
    assert run.code == 1, run.err
    assert run.err.splitlines()[-1] == (
        "step \"prompt\": 2 of 2 records dead: KeyError 'documents' (the record has: id, query). "
        "Is a retriever upstream? `sage dlq show dead`. [SAGE501]"
    )
    listed = shell("dlq", "list", "dead")
    assert listed.out.splitlines()[0] == "2 dead: 2 KeyError at step prompt"
    letters = json.loads(shell("dlq", "list", "dead", "-o", "json").out)
    assert [one["record"]["value"]["id"] for one in letters] == ["1", "2"]
    shown = shell("dlq", "show", "dead", letters[0]["id"]).out
    assert "KeyError" in shown
    assert "Traceback" in shown
    assert json.loads(shell("dlq", "show", "dead", "-o", "json").out)["record"]["value"]["id"] == "2"
    allowed = shell("topology", "run", "dead.yaml", "--until-idle", "--from-beginning", "--allow-dead", "2")
    assert allowed.code == 0, allowed.err


def test_a_run_goes_on_where_it_stopped_and_drains_on_signals(with_broker: Shell) -> None:
    shell = Shell(with_broker.folder)
    shell.write("growing.txt", "one\ntwo\n")
    shell.write("clean.py", "def clean(text: str) -> str:\n    return text.upper()\n")
    shell.write(
        "follow.yaml",
        "version: 1\nname: follow\nsteps:\n"
        "  lines: {source: file, config: {path: growing.txt, follow: true}}\n"
        "  clean: {map: 'clean.py:clean', from: lines}\n"
        "  out: {sink: topic, from: clean, config: {topic: follow-out}}\n",
    )

    def values() -> list[str]:
        lines = shell("topics", "tail", "follow-out", "--from-beginning", "-o", "json").out.splitlines()
        return sorted(json.loads(line)["value"] for line in lines)

    for number, expected, code in ((signal.SIGTERM, ["ONE", "TWO"], 0), (signal.SIGINT, ["ONE", "THREE", "TWO"], 130)):
        process = shell.start("topology", "run", "follow.yaml")
        try:
            wait_until(lambda wanted=expected: values() == wanted, timeout=60, what=f"{expected} arrive")  # type: ignore[misc]
            process.send_signal(number)
            assert process.wait(timeout=40) == code
            assert "Traceback" not in (process.communicate()[1] or "")
        finally:
            process.kill()
            process.communicate()
        with (shell.folder / "growing.txt").open("a") as file:
            file.write("three\n")
    assert values() == ["ONE", "THREE", "TWO"]


def test_ctrl_c_in_mid_run_drains_and_the_next_run_does_the_rest(with_broker: Shell) -> None:
    shell = Shell(with_broker.folder)
    shell.write("many.txt", "".join(f"{number}\n" for number in range(60)))
    shell.write(
        "pause.py",
        "import asyncio\nasync def pause(text: str) -> str:\n    await asyncio.sleep(0.2)\n    return text\n",
    )
    shell.write(
        "mid.yaml",
        "version: 1\nname: mid\nsteps:\n"
        "  lines: {source: file, config: {path: many.txt}}\n"
        "  pause: {map: 'pause.py:pause', from: lines, concurrency: 2}\n"
        "  out: {sink: topic, from: pause, config: {topic: mid-out}}\n",
    )

    def values() -> list[int]:
        lines = shell("topics", "tail", "mid-out", "--from-beginning", "-o", "json").out.splitlines()
        return [int(json.loads(line)["value"]) for line in lines]

    process = shell.start("topology", "run", "mid.yaml", "--until-idle")
    try:
        wait_until(lambda: len(values()) >= 5, timeout=60, what="five records came through")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        _, said = process.communicate()
        assert "Traceback" not in said
        assert said.splitlines()[-1] == "interrupted"
    finally:
        process.kill()
        process.communicate()
    rest = shell("topology", "run", "mid.yaml", "--until-idle")
    assert rest.code == 0, rest.err
    # A drain that was in time leaves nothing to do twice.
    assert sorted(values()) == list(range(60))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_is_told_before_it_begins_and_a_second_signal_ends_it_at_once(
    with_broker: Shell, number: signal.Signals
) -> None:
    shell = Shell(with_broker.folder)
    shell.write("one.txt", "one\n")
    shell.write(
        "long.py",
        "import threading\nfrom pathlib import Path\n"
        "def long(text: str) -> str:\n    Path('begun').touch()\n    threading.Event().wait()\n    return text\n",
    )
    shell.write(
        "long.yaml",
        f"version: 1\nname: long-{number}\nsteps:\n"
        "  lines: {source: file, config: {path: one.txt, follow: true}}\n"
        "  long: {map: 'long.py:long', from: lines}\n"
        "  out: {sink: topic, from: long, config: {topic: long-out}}\n",
    )
    begun = shell.folder / "begun"
    begun.unlink(missing_ok=True)
    process = shell.start("topology", "run", "long.yaml")
    try:
        wait_until(begun.exists, timeout=60, what="the step is at work")
        process.send_signal(number)
        assert process.stderr is not None
        said = ""
        while "draining; press Ctrl-C again to end at once" not in said:  # an end without it fails below
            line = process.stderr.readline()
            assert line, said
            said += line
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == "not drained: what was not committed is read again\ninterrupted\n"
    finally:
        process.kill()
        process.communicate()


def test_a_run_that_takes_too_long_is_5(with_broker: Shell) -> None:
    shell = Shell(with_broker.folder)
    shell.write("few.txt", "one\n")
    shell.write("slow.py", "import time\ndef slow(text: str) -> str:\n    time.sleep(6)\n    return text\n")
    shell.write(
        "slow.yaml",
        "version: 1\nname: slow\nsteps:\n"
        "  lines: {source: file, config: {path: few.txt}}\n"
        "  slow: {map: 'slow.py:slow', from: lines, blocking: true}\n"
        "  out: {sink: topic, from: slow, config: {topic: slow-out}}\n",
    )
    found = shell("topology", "run", "slow.yaml", "--until-idle", "--timeout", "1s")
    assert found.code == 5, found
    assert found.err.rstrip().endswith("[SAGE220]")
