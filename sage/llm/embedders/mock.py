"""An embedder for tests and examples: stable vectors, no model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD = re.compile(r"[^\W_]+")


class MockTextEmbedder:
    """Unit vectors that are the same in every process and on every machine.

    A text's vector is the sum of its tokens' vectors, each derived from a hash; so texts that share words are
    nearer to each other than texts that don't. Words without spaces between them (Chinese, Japanese) are
    compared by single characters and pairs.

    Args:
        fixed_dim: the length of the vectors.
    """

    def __init__(self, fixed_dim: int = 16) -> None:
        if fixed_dim < 2:
            raise ValueError(f"fixed_dim is {fixed_dim}; it must be 2 or more")
        self._dim = fixed_dim

    @property
    def name(self) -> str:
        """``mock/<dim>``, which ``load_embedder`` knows."""
        return f"mock/{self._dim}"

    @property
    def dim(self) -> int:
        """The length of the vectors."""
        return self._dim

    def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> NDArray[np.float32]:
        """A float32 array of shape (len(texts), dim); ``kind`` makes no difference here."""
        import numpy as np

        vectors = np.zeros((len(texts), self._dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for token in _tokens(text):
                # Unlike Python's own, this hash is the same in every process.
                digest = hashlib.shake_128(token.encode("utf-8", "replace")).digest(self._dim)
                vectors[row] += np.frombuffer(digest, dtype=np.uint8).astype(np.float32) - 127.5
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (vectors / norms).astype(np.float32)
        return unit


def _tokens(text: str) -> Iterator[str]:
    """Lower-cased words, and for scripts without spaces characters and pairs; never nothing."""
    found = False
    for match in _WORD.finditer(text.lower()):
        word = match[0]
        found = True
        if word.isascii():
            yield word
        else:
            yield from word
            yield from (word[i : i + 2] for i in range(len(word) - 1))
    if not found:
        yield f"\0{text}"
