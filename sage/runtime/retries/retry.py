"""How long to wait before the next try."""

from __future__ import annotations

import random

from sage.errors import RateLimited
from sage.spec.options import RetryPolicy


def delay_before(attempt: int, policy: RetryPolicy, error: BaseException, random_: random.Random) -> float | None:
    """Seconds to wait after the ``attempt``-th failed try (1 = first), or ``None`` when tries are used up.

    Exponential with full jitter in the upper half, so that records that failed together come back apart.
    A service that said how long to wait is believed, up to ``max_backoff``.
    """
    if attempt >= policy.attempts:
        return None
    doublings = min(attempt - 1, 64)  # enough to reach any bound, and no overflow after a thousand tries
    ceiling = min(policy.backoff * 2.0**doublings, policy.max_backoff)
    waited = ceiling * (0.5 + random_.random() / 2)
    if isinstance(error, RateLimited) and error.retry_after is not None:
        waited = max(waited, min(error.retry_after, policy.max_backoff))
    return waited
