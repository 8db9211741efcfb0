"""One set of services per folder: started once, joined by others, found again after crashes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sage.errors import DiskFull, FolderInUse, PortTaken, SageError, ServiceFailed, Unreachable
from sage.services import ports, processes
from sage.services.service_set import ServiceSet
from sage.services.state import UpState, read_state, write_state
from tests.unit.services.tcp_service import ask, factory

BROKER = {"broker": factory("broker")}
BOTH = {"broker": factory("broker"), "memory": factory("memory")}


def program() -> subprocess.Popen[bytes]:
    """Another program that lives until it is killed."""
    return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])


def end(other: subprocess.Popen[bytes]) -> None:
    other.kill()
    other.wait(timeout=10)


def test_up_starts_what_is_wanted_and_says_where_it_answers(services: ServiceSet) -> None:
    state = services.up(["broker", "memory"], factories=BOTH)
    for name, entry in state.services.items():
        assert ask(entry.port) == entry.pid
        assert entry.capabilities == {"kind": f"tcp {name}"}
        assert "listening on" in Path(entry.log).read_text()
    assert read_state(services.file) == state
    assert [(one.entry.name, one.state) for one in services.status()] == [("broker", "running"), ("memory", "running")]


def test_up_again_joins_what_is_there(services: ServiceSet) -> None:
    first = services.up(["broker"], factories=BROKER)
    again = services.up(["broker", "memory"], factories=BOTH)
    assert again.services["broker"] == first.services["broker"]
    assert set(again.services) == {"broker", "memory"}


def test_two_programs_that_start_at_once_share_one_set(services: ServiceSet) -> None:
    found: list[int] = []

    def start() -> None:
        found.append(ServiceSet(services.data_dir).up(["broker"], factories=BROKER).services["broker"].pid)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(found) == 4
    assert len(set(found)) == 1


def test_down_ends_every_process_and_removes_the_record(services: ServiceSet) -> None:
    state = services.up(["broker", "memory"], factories=BOTH)
    assert services.down() == ["memory", "broker"]
    assert not any(processes.is_same(entry.pid, entry.identity) for entry in state.services.values())
    assert not services.file.exists()
    assert services.down() == []


def test_a_service_that_ignores_sigterm_is_killed_after_the_deadline(services: ServiceSet) -> None:
    entry = services.up(["broker"], factories={"broker": factory(mode="stubborn")}).services["broker"]
    services.down(timeout=0.2)
    assert not processes.is_same(entry.pid, entry.identity)


def test_after_kill_9_the_next_up_starts_it_again_on_the_same_port(services: ServiceSet) -> None:
    before = services.up(["broker"], factories=BROKER).services["broker"]
    os.kill(before.pid, signal.SIGKILL)
    assert processes.wait_until_gone(before.pid, before.identity, timeout=5)
    assert services.status()[0].state == "dead"
    said: list[str] = []
    after = services.up(["broker"], factories=BROKER, progress=said.append).services["broker"]
    assert after.port == before.port
    assert ask(after.port) == after.pid != before.pid
    assert any("dead" in line for line in said)


def test_a_dead_service_behind_the_record_is_said_clearly(services: ServiceSet) -> None:
    entry = services.up(["broker"], factories=BROKER).services["broker"]
    assert services.find("broker") == entry
    assert services.find("memory") is None
    processes.kill(entry.pid, entry.identity)
    with pytest.raises(Unreachable, match=rf"up\.json: dead broker behind it: {entry.address}.*`sage up`") as caught:
        services.find("broker")
    assert caught.value.exit_code == 4


def test_a_recycled_process_id_is_neither_taken_for_the_service_nor_killed(services: ServiceSet) -> None:
    entry = services.up(["broker"], factories=BROKER).services["broker"]
    processes.kill(entry.pid, entry.identity)
    other = program()
    try:
        write_state(services.file, UpState({"broker": replace(entry, pid=other.pid)}))
        assert services.status()[0].state == "dead"
        assert services.down() == []
        assert other.poll() is None
    finally:
        end(other)


def test_a_stopped_process_is_silent_and_is_started_again(
    services: ServiceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sage.services.start._RECOVERY", 0.2)
    before = services.up(["broker"], factories=BROKER).services["broker"]
    os.kill(before.pid, signal.SIGSTOP)
    monkeypatch.setattr("sage.services.ending.ports.answers", lambda host, port: ask(port) is not None)
    with pytest.raises(Unreachable, match="does not answer"):
        services.find("broker")
    after = services.up(["broker"], factories=BROKER).services["broker"]
    assert after.pid != before.pid
    assert not processes.is_same(before.pid, before.identity)


def test_a_port_asked_for_that_is_taken_is_an_error_and_starts_nothing(services: ServiceSet) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port}.*--memory-port"):
            services.up(["broker", "memory"], factories=BOTH, ports={"memory": port})
    assert not services.file.exists()


def test_another_port_for_a_running_service_is_refused(services: ServiceSet) -> None:
    port = services.up(["broker"], factories=BROKER).services["broker"].port
    with pytest.raises(FolderInUse, match=rf"runs on port {port}, not {port + 1}"):
        services.up(["broker"], factories=BROKER, ports={"broker": port + 1})


def test_a_port_lost_between_choice_and_start_is_chosen_again(services: ServiceSet) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stolen = taken.getsockname()[1]
        entry = _up_with_first_choice(services, stolen)
        assert entry != stolen
        assert ask(entry) is not None


def _up_with_first_choice(services: ServiceSet, port: int) -> int:
    real, choices = ports.choose, iter([port])

    def choose(name: str, **given: Any) -> int:
        return next(choices, 0) or real(name, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ports, "choose", choose)
        return services.up(["broker"], factories=BROKER).services["broker"].port


def test_a_service_that_fails_shows_the_end_of_its_log_and_undoes_the_start(services: ServiceSet) -> None:
    factories = {"memory": factory("memory"), "broker": factory(mode="fail")}
    with pytest.raises(
        ServiceFailed, match=r"exit code 3: the files are from another version; .*broker\.log"
    ) as caught:
        services.up(["memory", "broker"], factories=factories)
    assert caught.value.log_tail == ("reading its files", "the files are from another version")
    assert not services.file.exists()


def test_a_failed_start_leaves_what_ran_before(services: ServiceSet) -> None:
    before = services.up(["memory"], factories=BOTH).services["memory"]
    with pytest.raises(ServiceFailed):
        services.up(["memory", "broker"], factories={**BOTH, "broker": factory(mode="fail")})
    assert ask(before.port) == before.pid
    assert set(read_state(services.file).services) == {"memory"}


def test_a_service_that_never_answers_is_given_up_and_ended(services: ServiceSet) -> None:
    with pytest.raises(ServiceFailed, match="did not answer on port"):
        services.up(["broker"], factories={"broker": factory(mode="mute")}, timeout=0.5)
    assert not services.file.exists()


def test_a_program_that_is_not_there_is_one_clear_error(services: ServiceSet) -> None:
    def missing(data_dir: Path, port: int):  # type: ignore[no-untyped-def]
        return replace(factory()(data_dir, port), argv=("/nowhere/broker",))

    with pytest.raises(ServiceFailed, match="cannot run /nowhere/broker"):
        services.up(["broker"], factories={"broker": missing})


def test_a_full_disk_is_named_as_such(services: ServiceSet) -> None:
    with pytest.raises(DiskFull, match="no space is left"):
        services.up(["broker"], factories={"broker": factory(mode="full")})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_that_cannot_grow_is_a_full_disk(services: ServiceSet) -> None:
    logs = services.data_dir / "logs"
    logs.mkdir(parents=True)
    (logs / "broker.log").symlink_to("/dev/full")
    with pytest.raises(DiskFull):
        services.up(["broker"], factories=BROKER)


def test_what_a_program_started_ends_with_its_last_user(services: ServiceSet) -> None:
    other = program()
    try:
        entry = services.up(["broker"], factories=BROKER, owner=os.getpid()).services["broker"]
        services.up(["broker"], factories=BROKER, owner=other.pid)
        assert services.users() == sorted([os.getpid(), other.pid])
        assert services.leave(os.getpid()) == []
        assert ask(entry.port) == entry.pid
        assert services.leave(other.pid) == ["broker"]
        assert not services.file.exists()
    finally:
        end(other)


def test_a_user_that_was_killed_does_not_keep_services_alive(services: ServiceSet) -> None:
    other = program()
    services.up(["broker"], factories=BROKER, owner=os.getpid())
    services.join(other.pid)
    end(other)
    assert services.users() == [os.getpid()]
    assert services.leave(os.getpid()) == ["broker"]


def test_a_process_that_joined_twice_leaves_twice(services: ServiceSet) -> None:
    services.up(["broker"], factories=BROKER, owner=os.getpid())
    services.up(["broker"], factories=BROKER, owner=os.getpid())
    assert services.leave(os.getpid()) == []
    assert services.leave(os.getpid()) == ["broker"]


def test_what_sage_up_started_outlives_its_users(services: ServiceSet) -> None:
    entry = services.up(["broker"], factories=BROKER).services["broker"]
    services.up(["broker", "memory"], factories=BOTH, owner=os.getpid())
    assert services.leave(os.getpid()) == ["memory"]
    assert ask(entry.port) == entry.pid


def test_sage_up_adopts_what_a_program_started(services: ServiceSet) -> None:
    entry = services.up(["broker"], factories=BROKER, owner=os.getpid()).services["broker"]
    services.up(["broker"], factories=BROKER)
    assert services.leave(os.getpid()) == []
    assert ask(entry.port) == entry.pid


def test_a_record_that_sage_did_not_write_is_not_touched(services: ServiceSet) -> None:
    services.data_dir.mkdir(parents=True)
    services.file.write_text('{"services": []}')
    with pytest.raises(SageError, match=r"up\.json: is not a file that this version"):
        services.up(["broker"], factories=BROKER)
    assert services.file.read_text() == '{"services": []}'
    services.file.unlink()


def test_the_record_is_plain_json_for_other_programs(services: ServiceSet) -> None:
    entry = services.up(["broker"], factories=BROKER).services["broker"]
    data = json.loads(services.file.read_text())
    assert data["services"]["broker"]["port"] == entry.port
    assert data["services"]["broker"]["kept"] is True


def test_a_kept_service_that_a_program_starts_again_stays_kept(services: ServiceSet) -> None:
    before = services.up(["broker"], factories=BROKER).services["broker"]
    processes.kill(before.pid, before.identity)
    after = services.up(["broker"], factories=BROKER, owner=os.getpid()).services["broker"]
    assert services.leave(os.getpid()) == []
    assert ask(after.port) == after.pid


def test_sage_up_with_another_model_replaces_the_model_server(services: ServiceSet) -> None:
    first, second = {"model": factory("model", model="local/a")}, {"model": factory("model", model="local/b")}
    before = services.up(["model"], factories=first).services["model"]
    after = services.up(["model"], factories=second).services["model"]
    assert after.capabilities["model"] == "local/b"
    assert after.port == before.port
    assert not processes.is_same(before.pid, before.identity)


def test_a_program_does_not_take_the_model_server_from_others(services: ServiceSet) -> None:
    first, second = {"model": factory("model", model="local/a")}, {"model": factory("model", model="local/b")}
    entry = services.up(["model"], factories=first).services["model"]
    with pytest.raises(FolderInUse, match="serves local/a to others, not local/b"):
        services.up(["model"], factories=second, owner=os.getpid())
    assert ask(entry.port) == entry.pid
    services.down()
    services.up(["model"], factories=first, owner=os.getpid())
    assert services.up(["model"], factories=second, owner=os.getpid()).services["model"].capabilities["model"] == (
        "local/b"
    )
