"""State in the hands of one record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field

from sage.errors import RecordFailure, StageStopped
from sage.runtime.state.envelope import Envelope
from sage.runtime.state.table import PartitionTable

MakeTable = Callable[..., PartitionTable]


class Cart(BaseModel):
    items: list[str] = Field(default_factory=list)
    n: int = 0


class Renamed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: int = Field(0, alias="theN")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.n


class RenamedOutside(Renamed):
    model_config = ConfigDict(serialize_by_alias=True)


def value(table: PartitionTable, key: bytes = b"k") -> Any:
    return table.begin(key, 0).state


def keep(table: PartitionTable, **state: Any) -> None:
    work = table.begin(b"k", 0)
    work.state = state
    table.stage(work)


def test_a_new_key_has_an_empty_mapping(table: MakeTable) -> None:
    assert value(table()) == {}


def test_the_next_record_of_a_key_sees_what_the_last_one_did(table: MakeTable) -> None:
    one = table()
    work = one.begin(b"k", 0)
    work.state["n"] = work.state.get("n", 0) + 1
    one.stage(work)
    assert value(one) == {"n": 1}
    assert value(one, b"other") == {}


def test_a_work_that_is_dropped_changes_nothing(table: MakeTable) -> None:
    one = table()
    keep(one, tags=["a"])
    work = one.begin(b"k", 0)
    work.state["tags"].append("b")
    work.timers.set(after=5)
    assert value(one) == {"tags": ["a"]}
    assert one.begin(b"k", 0).timers.due == {}


def test_an_object_that_is_kept_and_changed_later_changes_nothing(table: MakeTable) -> None:
    one = table()
    work = one.begin(b"k", 0)
    kept = work.state
    kept["tags"] = ["a"]
    one.stage(work)
    kept["tags"].append("b")
    assert value(one) == {"tags": ["a"]}


@pytest.mark.parametrize("model", [None, Cart])
def test_reading_alone_is_no_change(table: MakeTable, model: Any) -> None:
    one = table(model=model)
    work = one.begin(b"k", 0)
    assert work.state is not None
    assert one.stage(work) is None
    assert one.stage(one.begin(b"k", 0)) is None


def test_setting_what_is_there_is_no_change(table: MakeTable) -> None:
    one = table()
    keep(one, n=1)
    work = one.begin(b"k", 0)
    work.state["n"] = 1
    assert one.stage(work) is None


def test_a_default_that_is_set_by_hand_over_something_else_is_a_change(table: MakeTable) -> None:
    one = table(model=Cart)
    keep(one, n=3)
    work = one.begin(b"k", 0)
    work.state = Cart()
    assert one.stage(work) is not None
    assert value(one) == Cart()


def test_a_model_is_given_and_kept(table: MakeTable) -> None:
    one = table(model=Cart)
    work = one.begin(b"k", 0)
    work.state.items.append("tea")
    one.stage(work)
    assert value(one) == Cart(items=["tea"])


@pytest.mark.parametrize("model", [Renamed, RenamedOutside])
def test_a_model_with_other_names_outside_and_computed_fields_is_kept(table: MakeTable, model: Any) -> None:
    one = table(model=model)
    for count in (1, 2, 3):
        work = one.begin(b"k", 0)
        work.state.n += 1
        one.stage(work)
        assert value(one).n == count
    for given in ({"n": 7}, {"theN": 7}):
        work = one.begin(b"k", 0)
        work.state = given
        one.stage(work)
        assert value(one).n == 7


def test_a_mapping_set_on_a_model_step_is_checked_at_once(table: MakeTable) -> None:
    one = table(model=Cart)
    work = one.begin(b"k", 0)
    work.state = {"n": "many"}
    with pytest.raises(RecordFailure, match="no Cart"):
        one.stage(work)


def test_a_model_filled_with_what_it_can_not_hold_fails_its_record_and_not_the_next_ones(table: MakeTable) -> None:
    one = table(model=Cart)
    work = one.begin(b"k", 0)
    work.state.n = "many"
    with pytest.raises(RecordFailure, match="does not fit its model"):
        one.stage(work)
    assert value(one) == Cart()


def test_kept_state_that_does_not_fit_the_model_names_the_key_and_the_field(table: MakeTable) -> None:
    keep(table(), n="many")
    one = table(model=Cart)
    one.store.apply({b"sk": Envelope({"n": "many"}).encode()}, 1)
    with pytest.raises(StageStopped, match=r"state of key b'k' does not fit Cart: n: .*give new fields a default"):
        value(one)


def test_what_no_sage_wrote_stops_the_stage(table: MakeTable) -> None:
    one = table()
    one.store.apply({b"sk": b"[1]"}, 1)
    with pytest.raises(StageStopped, match="no key's state"):
        value(one)


@pytest.mark.parametrize("cleared", ["clear", "empty", "none"])
def test_state_that_is_cleared_is_forgotten(table: MakeTable, cleared: str) -> None:
    one = table()
    keep(one, n=1)
    work = one.begin(b"k", 0)
    if cleared == "clear":
        work.clear()
    else:
        work.state = {} if cleared == "empty" else None
    change = one.stage(work)
    assert change is not None
    assert change.value is None
    assert value(one) == {}


def test_clearing_leaves_the_timers(table: MakeTable) -> None:
    one = table()
    work = one.begin(b"k", 1_000)
    work.state["n"] = 1
    work.timers.set("late", after="2s")
    one.stage(work)
    work = one.begin(b"k", 1_000)
    work.clear()
    one.stage(work)
    assert one.begin(b"k", 1_000).timers.due == {"late": 3_000}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        ({3, 1, 2}, [1, 2, 3]),
        ([Cart(n=1)], [{"items": [], "n": 1}]),
    ],
)
def test_what_has_a_json_form_is_kept_as_json(table: MakeTable, given: Any, found: Any) -> None:
    one = table()
    keep(one, v=given)
    assert value(one) == {"v": found}


def test_any_mapping_may_be_set(table: MakeTable) -> None:
    one = table()
    work = one.begin(b"k", 0)
    work.state = MappingProxyType({"n": 1})
    one.stage(work)
    assert value(one) == {"n": 1}


@pytest.mark.parametrize("bad", [{"f": object()}, {"b": b"bytes"}, {1: "not text"}, {"n": 2**70}, [1], "text", 7])
def test_what_is_no_json_mapping_fails_its_record(table: MakeTable, bad: Any) -> None:
    one = table()
    work = one.begin(b"k", 0)
    work.state = bad
    with pytest.raises(RecordFailure):
        one.stage(work)
    assert value(one) == {}


def test_a_record_without_a_key_is_told_to_put_key_by_before(table: MakeTable) -> None:
    with pytest.raises(RecordFailure, match="no key, so it has no state; put key_by before this step"):
        table().begin(None, 0)


def test_an_empty_key_is_a_key(table: MakeTable) -> None:
    one = table()
    work = one.begin(b"", 0)
    work.state["n"] = 1
    one.stage(work)
    assert value(one, b"") == {"n": 1}


def test_a_timer_that_nobody_would_hear_is_refused(table: MakeTable) -> None:
    with pytest.raises(StageStopped, match="on_timer=function"):
        table(has_timers=False).begin(b"k", 0).timers.set(after=1)


@pytest.mark.parametrize("arguments", [{}, {"after": 1, "at": 5}])
def test_a_timer_has_one_time(table: MakeTable, arguments: dict[str, Any]) -> None:
    with pytest.raises(StageStopped, match="after= or at="):
        table().begin(b"k", 0).timers.set(**arguments)


def test_a_state_over_the_limit_fails_before_anybody_sees_it(table: MakeTable) -> None:
    one = table()

    def check(key: bytes, data: bytes | None) -> None:
        raise RecordFailure(f"{key!r} is too large")

    work = one.begin(b"k", 0)
    work.state["n"] = 1
    with pytest.raises(RecordFailure, match="too large"):
        one.stage(work, check)
    assert value(one) == {}
