"""A topology on the workers of a cluster."""

from __future__ import annotations

from typing import Any, NoReturn

from sage.errors import NotInThisVersion


class RemoteEnvironment:
    """Deploys to a cluster's workers. The control plane that it needs is not in this version.

    Raises:
        NotInThisVersion: always, and at once, so that nobody builds a pipeline on it.
    """

    def __init__(self, name: str, *, bootstrap_servers: str | None = None, **options: Any) -> None:
        del bootstrap_servers, options
        self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        raise NotInThisVersion(
            f"RemoteEnvironment({name!r}): deploying to workers is not in this version; "
            "run the same topology with LocalEnvironment(bootstrap_servers=...) or `sage topology run` on each machine"
        )
