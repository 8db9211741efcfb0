"""Two programs that start services at once count on different ports."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sage.services import ports
from sage.services.reservations import Reservations
from sage.services.service_set import ServiceSet
from tests.unit.services.tcp_service import ask, factory
from tests.unit.services.test_ports import free


def test_a_port_is_one_programs_until_it_is_done(tmp_path: Path) -> None:
    port = free()
    with Reservations(tmp_path / "ports") as one, Reservations(tmp_path / "ports") as other:
        assert one.take(port)
        assert not other.take(port)
    with Reservations(tmp_path / "ports") as later:
        assert later.take(port)


def test_a_folder_that_is_not_ours_reserves_nothing_and_hinders_nobody(tmp_path: Path) -> None:
    (tmp_path / "ports").write_text("a file")
    with Reservations(tmp_path / "ports") as one:
        assert one.take(free())


def test_folders_that_start_at_once_do_not_take_each_others_service_for_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "PREFERRED", {"broker": free()})
    sets = [ServiceSet(tmp_path / f"folder-{number}" / ".sage") for number in range(4)]
    barrier = threading.Barrier(len(sets))

    def start(services: ServiceSet) -> None:
        barrier.wait()
        services.up(["broker"], factories={"broker": factory("broker")})

    threads = [threading.Thread(target=start, args=(each,)) for each in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    try:
        found = [each.find("broker") for each in sets]
        assert len({entry.port for entry in found if entry is not None}) == len(sets)
        assert [ask(entry.port) for entry in found if entry] == [entry.pid for entry in found if entry]
    finally:
        for each in sets:
            each.down(timeout=2.0)
