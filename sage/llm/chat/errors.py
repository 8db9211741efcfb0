"""The one table from what a chat service did to the error a user can act on.

=========================================  =======================  ====================================
what happened                              error                    why
=========================================  =======================  ====================================
connection refused, unknown host           Unreachable              nobody is there: records must wait
401, 403                                   Unauthorized             every record would be refused alike
404                                        NotFound                 the model or the path does not exist
429 ``insufficient_quota``                 Unauthorized             paying mends it, waiting does not
429                                        RateLimited              the service asks to wait
408, 409, 425, 5xx, time-out, broken link  TransientFailure         the same request may pass next time
not JSON, no choices                       TransientFailure         a proxy or an overloaded server
400, 413, 422, other 4xx                   RecordFailure            this request is refused for good
=========================================  =======================  ====================================

No message ever holds the key: services echo parts of it in their own texts, so those of 401 and 403 are
not repeated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai

from sage.errors import (
    NotFound,
    RateLimited,
    RecordFailure,
    SageError,
    TransientFailure,
    Unauthorized,
    Unreachable,
)

_TRANSIENT_STATUS = frozenset({408, 409, 425})
_REASON_LENGTH = 200


class GarbageReply(Exception):  # noqa: N818 - internal; becomes a TransientFailure in ``classified``
    """The service answered with something that is not a chat completion."""


class BrokenOff(Exception):  # noqa: N818 - internal, as above
    """The stream ended before the answer did."""


SERVICE_ERRORS = (openai.OpenAIError, httpx2.HTTPError, json.JSONDecodeError, GarbageReply, BrokenOff)
"""What ``classified`` knows; anything else is a mistake of ours and must show itself."""


def classified(error: Exception, *, address: str, model: str) -> SageError:
    """The SageError for one of ``SERVICE_ERRORS``, raised by a call of ``model`` at ``address``."""
    if isinstance(error, openai.APIStatusError):
        return _by_status(error, address=address, model=model)
    if isinstance(error, openai.APITimeoutError | httpx2.TimeoutException | TimeoutError):
        return timed_out(address, model)
    if isinstance(error, openai.APIConnectionError | httpx2.TransportError):
        return _by_connection(error, address)
    if isinstance(error, openai.APIError):
        # An error event inside the stream: the service gave up half-way.
        return TransientFailure(
            f"model {model} at {address} broke off its answer: {_reason(error)}. It is tried again."
        )
    return TransientFailure(
        f"{address} did not answer like a chat service: {_short(str(error))}. "
        "Check that base_url ends where /chat/completions begins."
    )


def timed_out(address: str, model: str, seconds: float | None = None) -> TransientFailure:
    """The error for an answer that did not end in time."""
    limit = "" if seconds is None else f" within {seconds:g} s"
    return TransientFailure(
        f"model {model} at {address} did not answer{limit}. It is tried again; raise `timeout` if the model is slow."
    )


def _by_connection(error: Exception, address: str) -> SageError:
    cause = error if isinstance(error, httpx2.TransportError) else error.__cause__
    if isinstance(cause, httpx2.TransportError) and not isinstance(cause, httpx2.ConnectError):
        return TransientFailure(f"the connection to {address} broke: {_short(str(cause) or type(cause).__name__)}.")
    return Unreachable(
        f"cannot reach the model service at {address} ({_short(str(cause or error))}). "
        "Start it (`sage up` for local models), or set base_url or OPENAI_BASE_URL."
    )


def _by_status(error: openai.APIStatusError, *, address: str, model: str) -> SageError:
    status = error.status_code
    if status in {401, 403}:
        return Unauthorized(
            f"the model service at {address} refused the key (HTTP {status}). "
            "Set OPENAI_API_KEY or the step's api_key to a valid one."
        )
    if status == 404:
        return NotFound(
            f"the model service at {address} knows no model {model!r} (HTTP 404: {_reason(error)}). "
            "Check `model` and base_url; `sage models list` shows the local ones."
        )
    if status == 429:
        if "insufficient_quota" in {error.code, error.type}:
            return Unauthorized(
                f"the quota at {address} is used up (HTTP 429 insufficient_quota). "
                "Check the account's plan and billing, or use model: local/smollm2."
            )
        wait = retry_after(error.response.headers)
        asked = "" if wait is None else f", asks to wait {wait:g} s"
        return RateLimited(
            f"the model service at {address} limits the rate (HTTP 429{asked}). Lower the step's concurrency.",
            retry_after=wait,
        )
    if status in _TRANSIENT_STATUS or status >= 500:
        return TransientFailure(f"the model service at {address} failed (HTTP {status}: {_reason(error)}).")
    return RecordFailure(
        f"the model service at {address} refused the request (HTTP {status}: {_reason(error)}). "
        "Shorten the prompt (max_documents, top_k) or mend the messages."
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a ``Retry-After`` header asks for: milliseconds, seconds or an HTTP date; never negative."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    text = headers.get("retry-after", "")
    seconds = _number(text)
    if seconds is None:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _reason(error: openai.APIError) -> str:
    """The service's own sentence, on one line and short."""
    body: Any = error.body
    text = body.get("message") if isinstance(body, Mapping) else None
    return _short(str(text or error.message))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _REASON_LENGTH else f"{line[: _REASON_LENGTH - 1]}…"
