"""How long to wait before the next try."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import RateLimited
from sage.runtime.retries.retry import delay_before
from sage.spec.options import RetryPolicy

ERROR = ConnectionError("x")


@given(
    st.integers(1, 5_000),
    st.floats(0.001, 60),
    st.floats(0.001, 600),
    st.integers(0, 2**32),
)
def test_a_delay_is_within_the_upper_half_of_its_step_and_bounded(
    attempt: int, backoff: float, longest: float, seed: int
) -> None:
    policy = RetryPolicy(attempts=attempt + 1, backoff=backoff, max_backoff=longest)
    delay = delay_before(attempt, policy, ERROR, random.Random(seed))
    assert delay is not None
    ceiling = min(backoff * 2 ** min(attempt - 1, 60), longest)
    assert ceiling / 2 <= delay <= ceiling


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_tries_are_used_up_after_as_many_as_the_policy_says(attempts: int) -> None:
    policy = RetryPolicy(attempts=attempts)
    delays = [delay_before(attempt, policy, ERROR, random.Random(1)) for attempt in range(1, attempts + 2)]
    assert [delay is not None for delay in delays] == [True] * (attempts - 1) + [False, False]


def test_the_default_waits_double_from_a_fifth_of_a_second() -> None:
    class Longest(random.Random):
        def random(self) -> float:
            return 1.0

    delays = [delay_before(attempt, RetryPolicy(), ERROR, Longest()) for attempt in range(1, 5)]
    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6])


def test_records_that_failed_together_come_back_apart() -> None:
    source = random.Random(3)
    delays = {delay_before(3, RetryPolicy(), ERROR, source) for _ in range(50)}
    assert len(delays) == 50


def test_a_service_that_says_how_long_is_believed_up_to_the_bound() -> None:
    policy = RetryPolicy(backoff=0.2, max_backoff=30)
    assert delay_before(1, policy, RateLimited("x", retry_after=7.0), random.Random(1)) == 7.0
    assert delay_before(1, policy, RateLimited("x", retry_after=3_600.0), random.Random(1)) == 30.0
    small = delay_before(4, policy, RateLimited("x", retry_after=0.001), random.Random(1))
    assert small is not None
    assert small >= 0.8


def test_a_rate_limit_without_a_time_backs_off_as_others_do() -> None:
    delay = delay_before(1, RetryPolicy(), RateLimited("x"), random.Random(1))
    assert delay is not None
    assert 0.1 <= delay <= 0.2
