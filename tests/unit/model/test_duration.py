"""Durations as users write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from sage.model.duration import LONGEST, Duration, seconds


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("500ms", 0.5), ("2m", 120.0), ("1.5s", 1.5), ("7d", 604_800.0), ("1h", 3_600.0), (" 10 s ", 10.0),
        (0, 0.0), (3, 3.0), (0.25, 0.25),
    ],
)  # fmt: skip
def test_a_duration_is_seconds_or_a_text_with_a_unit(written: float | str, meant: float) -> None:
    assert seconds(written) == pytest.approx(meant)


@pytest.mark.parametrize(
    "written", ["", "5", "ms", "5 minutes", "-1s", "1e3s", -1, -0.5, float("nan"), True, None, [1]]
)
def test_what_is_no_duration_is_refused_by_its_value(written: object) -> None:
    with pytest.raises(ValueError, match="is not a duration") as caught:
        seconds(written)  # type: ignore[arg-type]
    assert repr(written) in str(caught.value)


@pytest.mark.parametrize("written", ["36501d", "9" * 400 + "ms", LONGEST + 1, float("inf"), 10**400])
def test_what_overflows_the_clocks_below_is_refused(written: float | str) -> None:
    with pytest.raises(ValueError, match="is too long a duration; 36500d is the longest"):
        seconds(written)
    assert seconds("36500d") == seconds(LONGEST) == LONGEST


@given(st.integers(0, 10**5), st.sampled_from([("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]))
def test_units_are_exact_multiples(number: int, unit: tuple[str, int]) -> None:
    name, milliseconds = unit
    assert seconds(f"{number}{name}") == pytest.approx(number * milliseconds / 1000)


class Waiting(BaseModel):
    wait: Duration = 1.0


def test_a_pydantic_field_takes_both_and_holds_seconds() -> None:
    assert Waiting(wait="250ms").wait == 0.25
    with pytest.raises(ValidationError, match="is not a duration"):
        Waiting(wait="soon")
