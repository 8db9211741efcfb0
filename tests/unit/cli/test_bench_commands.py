"""``sage bench`` without running anything: what is refused, what is compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sage.operations.measuring import saved
from sage.operations.measuring.figures import Figures, Latency
from sage.testing import InMemoryClients
from tests.unit.cli import memory_broker
from tests.unit.cli.conftest import Sage

HERE = "tests.unit.cli.pipelines"


def write(name: str, **changed: Any) -> None:
    base: dict[str, Any] = {
        "topology": "qa", "graph": "g", "plan": "p", "input": "in.jsonl", "input_digest": "d", "records": 1_000,
        "rate": 50.0, "processes": 1, "guarantee": "at_least_once", "machine": {"cores": 2, "broker": "kafka"},
        "records_per_second": 12_345.6, "seconds": 9.8, "latency": Latency(1.0, 2.0, 3.0), "processor_us": 50.0,
        "memory_mib": 100.0, "outputs": 1_000, "dead": 0,
    }  # fmt: skip
    saved.save(Path(name), Figures(**(base | changed)))


def test_runs_side_by_side_are_a_table_of_ratios(sage: Sage) -> None:
    write("a.json")
    write("b.json", records_per_second=11_800.0, latency=Latency(1.05, 1.0, 9.0))
    found = sage("bench", "compare", "a.json", "b.json")
    assert (found.code, found.err) == (0, "")
    lines = found.out.splitlines()
    assert lines[0].split() == ["MEASURE", "BEFORE", "NOW", "NOW/BEFORE", "VERDICT"]
    assert lines[1].split() == ["records/s", "12,346", "11,800", "0.96", "-"]
    assert [line.split()[-2] for line in lines[2:5]] == ["1.05", "0.50", "3.00"]


def test_what_is_slower_than_allowed_is_1_and_named(sage: Sage) -> None:
    write("a.json")
    write("b.json", records_per_second=10_000.0, processor_us=70.0)
    found = sage("bench", "compare", "a.json", "b.json", "-o", "json")
    assert found.code == 1
    assert [row["measure"] for row in json.loads(found.out) if row["worse"]] == ["records/s", "processor us/record"]
    assert found.err == "qa: worse than --max-slowdown 0.1 allows: records/s, processor us/record [SAGE100]\n"
    assert sage("bench", "compare", "a.json", "b.json", "--max-slowdown", "0.5").code == 0


def test_what_was_not_measured_alike_is_refused_without_force(sage: Sage) -> None:
    write("a.json")
    write("b.json", graph="other", rate=None)
    found = sage("bench", "compare", "a.json", "b.json")
    assert (found.code, found.out) == (2, "")
    assert "other steps; rate 50 and none; compare them anyway with --force" in found.err
    forced = sage("bench", "compare", "a.json", "b.json", "--force")
    assert (forced.code, "not alike: other steps" in forced.err) == (0, True)


def test_another_machine_is_told(sage: Sage) -> None:
    write("a.json")
    write("b.json", machine={"cores": 64, "broker": "embedded"})
    found = sage("bench", "compare", "a.json", "b.json")
    assert (found.code, found.err) == (
        0, "not alike: cores 2 and 64\nnot alike: broker kafka and embedded\n"
    )  # fmt: skip


def test_files_that_are_not_there_or_no_figures(sage: Sage) -> None:
    write("a.json")
    Path("b.json").write_text("{}")
    assert sage("bench", "compare", "a.json", "none.json").code == 4
    assert sage("bench", "compare", "a.json", "b.json").code == 2
    missing = sage("bench", "compare", "a.json")
    assert (missing.code, "for example `sage bench compare before.json now.json`" in missing.err) == (2, True)
    assert sage("bench", "compare", "a.json", "a.json", "--max-slowdown", "-1").code == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--records", "0"), "--records is 1 or more"),
        (("--rate", "0"), "--rate is 0.01 or more"),
        (("--rate", "nan"), "--rate is 0.01 or more"),
        (("--processes", "0"), "--processes is 1 or more"),
        (("--timeout", "soon"), "'soon' is not a duration"),
        (("--source", "nubers"), "sources: from_topic"),
        (("--save", "none/figures.json"), "--save is a file in a folder that exists; there is no "),
        (("--save", "."), "--save is a file; . is a folder"),
    ],
)
def test_what_is_not_understood_is_2(sage: Sage, words: tuple[str, ...], says: str) -> None:
    found = sage("bench", "run", f"{HERE}:first", *words)
    assert (found.code, found.out) == (2, "")
    assert says in found.err


def test_what_is_not_there_is_4_and_nothing_is_made(sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    clients: InMemoryClients = memory_broker.use(monkeypatch)
    monkeypatch.setattr("sage.wiring.brokers.find_brokers", lambda *_, **__: memory_broker.Brokers(clients))
    assert sage("bench", "run", "none.yaml").code == 4
    assert sage("bench", "run", f"{HERE}:first", "--input", "none.jsonl").code == 4
    found = sage("bench", "run", f"{HERE}:first")
    assert (found.code, "topic numbers: does not exist; give records with --input FILE" in found.err) == (4, True)
    assert clients.admin().list_topics() == []


def test_a_file_that_is_wrong_is_2_with_its_line(sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = memory_broker.use(monkeypatch)
    monkeypatch.setattr("sage.wiring.brokers.find_brokers", lambda *_, **__: memory_broker.Brokers(clients))
    Path("in.jsonl").write_text("1\n{broken\n")
    found = sage("bench", "run", f"{HERE}:first", "--input", "in.jsonl")
    assert (found.code, found.err.startswith("in.jsonl:2: not JSON")) == (2, True)
