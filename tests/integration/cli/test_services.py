"""``sage up``, ``status``, ``down`` with the real embedded broker and memory server."""

from __future__ import annotations

import json
import os
import re
import signal
import socket

import pytest

from sage.services import processes
from tests.integration.cli.conftest import Shell

pytestmark = pytest.mark.integration


def test_up_is_one_line_and_status_shows_each_service(sage: Shell) -> None:
    started = sage("up", "--only", "broker,memory")
    assert started.code == 0, started.err
    assert re.fullmatch(r"broker localhost:\d+ \| memory localhost:\d+ \| ready in [\d.]+ m?s\n", started.out), (
        started.out
    )
    assert started.err == ""
    rows = json.loads(sage("status", "-o", "json").out)
    assert [(row["name"], row["state"], row["started_by"]) for row in rows] == [
        ("broker", "running", "sage up"), ("memory", "running", "sage up"),
    ]  # fmt: skip
    assert rows[0]["capabilities"]["group_protocol"] == "classic"
    again = json.loads(sage("up", "--only", "broker,memory", "-o", "json").out)
    assert again["services"]["broker"]["pid"] == rows[0]["pid"]
    stopped = sage("down")
    assert (stopped.code, stopped.out) == (0, "stopped memory, broker\n")
    assert [processes.identity(row["pid"]) for row in rows] == [None, None]


def test_without_services_status_and_down_say_so_and_are_no_failure(sage: Shell) -> None:
    assert (sage("status").code, sage("status").out) == (0, "")
    assert "start with `sage up`" in sage("status").err
    assert json.loads(sage("status", "-o", "json").out) == []
    assert (sage("down").code, json.loads(sage("down", "-o", "json").out)) == (0, {"stopped": []})


def test_after_kill_9_every_command_says_it_and_up_recovers_with_the_data(sage: Shell) -> None:
    assert sage("up", "--only", "broker").code == 0
    assert sage("topics", "create", "t").code == 0
    assert sage("topics", "produce", "t", "kept").code == 0
    assert sage("down").code == 0
    assert sage("up", "--only", "broker").code == 0
    (row,) = json.loads(sage("status", "-o", "json").out)
    identity = processes.identity(row["pid"])
    os.kill(row["pid"], signal.SIGKILL)
    assert identity is not None
    assert processes.wait_until_gone(row["pid"], identity, timeout=10)
    for words in (("status",), ("topics", "list"), ("dlq", "list", "qa")):
        found = sage(*words)
        assert found.code == 4
        assert "dead broker behind it" in found.err
        assert "`sage up`" in found.err
        assert "Traceback" not in found.err
    assert sage("up", "--only", "broker").code == 0
    assert json.loads(sage("status", "-o", "json").out)[0]["port"] == row["port"]
    assert json.loads(sage("topics", "tail", "t", "-o", "json").out)["value"] == "kept"


def test_a_port_asked_for_that_is_taken_is_one_line_and_exit_1(sage: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        found = sage("up", "--port", port)
    assert (found.code, found.out) == (1, "")
    assert found.err.startswith(f"port {port}, asked for as the broker's, is in use")
    assert found.err.rstrip().endswith("[SAGE211]")
    assert len(found.err.splitlines()) == 1
    assert sage("status", "-o", "json").out.strip() == "[]"


def test_a_full_disk_is_one_line_and_exit_1(sage: Shell) -> None:
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("this system has no /dev/full")
    logs = sage.folder / ".sage" / "logs"
    logs.mkdir(parents=True)
    (logs / "broker.log").symlink_to("/dev/full")
    found = sage("up", "--only", "broker")
    assert found.code == 1
    assert found.err.rstrip().endswith("[SAGE213]")
    assert "no space is left" in found.err


def test_a_folder_that_cannot_be_made_is_one_line(sage: Shell) -> None:
    sage.write("file", "")
    found = sage("up", "--data-dir", "file/sage")
    assert found.code == 1
    assert "cannot be written: Not a directory" in found.err
