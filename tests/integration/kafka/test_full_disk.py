"""A disk that fills up under keyed state: the worker says so and ends; with room again nothing is lost or doubled."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.brokers import ApacheBroker
from tests.support.records import everything, fill, make_topic, total_lag, values_of

STEPS = """
def keep(value, ctx):
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    ctx.state[f"filling-{value['id']}"] = f"{value['id']:064d}" * 30
    yield {**value, "n": ctx.state["n"]}
"""

TOPOLOGY = """
version: 1
name: {name}
guarantee: {guarantee}
defaults: {{partitions: 2}}
steps:
  input: {{source: topic, config: {{topic: {name}-in}}}}
  keyed: {{key_by: k, from: input}}
  keep: {{process: "steps:keep", from: keyed}}
  output: {{sink: topic, from: keep, config: {{topic: {name}-out}}}}
"""

RECORDS = 12_000
KEYS = 600
"""Of 2 kB a record: eight times the disk, so that it is full long before the last checkpoint."""

SMALL_DISK = 'mount -t tmpfs -o size=3m tmpfs "$1" && shift && exec "$@"'
"""In a mount namespace of its own, so that no right of the machine is needed and nothing stays behind."""


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    asked = ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(asked, capture_output=True, check=False, timeout=20).returncode == 0


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_full_disk_under_keyed_state_is_told_with_exit_1_and_with_room_again_nothing_is_lost(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path, guarantee: str
) -> None:
    if not can_mount():
        pytest.skip("NOT TESTED: this system lets nobody mount a small disk in a namespace (unshare -Urm)")
    name, clients = unique("disk"), apache_kafka.clients()
    for topic in (f"{name}-in", f"{name}-out"):
        make_topic(clients, topic, 2)
    fill(clients, f"{name}-in", [{"id": number, "k": f"k{number % KEYS}"} for number in range(RECORDS)], keyed_by="k")
    (tmp_path / "steps.py").write_text(STEPS, encoding="utf-8")
    (tmp_path / "topology.yaml").write_text(TOPOLOGY.format(name=name, guarantee=guarantee), encoding="utf-8")
    disk = tmp_path / ".sage"
    disk.mkdir()
    run = [sys.executable, "-m", "sage", "topology", "run", "topology.yaml", "--bootstrap-servers",
           apache_kafka.bootstrap_servers, "--until-idle"]  # fmt: skip

    small = ["unshare", "-Urm", "sh", "-c", SMALL_DISK, "sh", str(disk), *run]
    full = subprocess.run(small, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120, env=os.environ)
    assert full.returncode == 1, f"{shlex.join(small)}\n{full.stderr}"
    assert "[SAGE213]" in full.stderr.strip().splitlines()[-1], full.stderr
    assert "Traceback" not in full.stderr
    assert total_lag(clients, f"{name}.keep", f"{name}.keyed", 2) > 0, "there was room for all of it"

    again = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 0, again.stderr
    written = values_of(everything(clients, f"{name}-out"))
    times = Counter(value["id"] for value in written)
    assert set(times) == set(range(RECORDS))
    assert total_lag(clients, f"{name}.keep", f"{name}.keyed", 2) == 0
    last = {key: max(value["n"] for value in written if value["k"] == key) for key in {v["k"] for v in written}}
    if guarantee == "exactly_once":
        assert max(times.values()) == 1
        assert set(last.values()) == {RECORDS // KEYS}
    else:
        assert min(last.values()) >= RECORDS // KEYS
