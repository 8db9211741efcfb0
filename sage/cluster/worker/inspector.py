"""Checks deployments beside the worker's own thread: importing code and opening models may take long, or never end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from sage.cluster.deployment import Deployment
from sage.cluster.status import Check, Problem
from sage.cluster.worker.checks import Checker, open_operators
from sage.cluster.worker.topology_host import MakeWorld

logger = logging.getLogger("sage.cluster")

LOOK_AGAIN: Final = 20.0
"""Seconds after which something that was not ready is looked at again: a collection may have been made meanwhile."""


@dataclass(slots=True)
class _Inspection:
    deployment: Deployment
    check: Check | None = None
    at: float = 0.0
    is_under_way: bool = False
    is_deep: bool = False


class Inspector:
    """What is known of deployments on this worker. Asked from its thread; each check has a thread of its own.

    Args:
        checker: looks.
        make_world: what operators are opened in.
        changed: called from any thread when a check is done.
    """

    def __init__(self, checker: Checker, make_world: MakeWorld, changed: Callable[[str], None]) -> None:
        self._checker = checker
        self._make_world = make_world
        self._changed = changed
        self._guard = threading.Lock()
        self._found: dict[tuple[str, int], _Inspection] = {}

    def look(self, deployment: Deployment, *, deep: bool) -> None:
        """Have a deployment checked, unless that is done or under way; ``deep`` opens its operators too."""
        key = (deployment.name, deployment.version)
        now = time.monotonic()
        with self._guard:
            known = self._found.get(key)
            if known is None or known.deployment != deployment:  # or its number was given again
                known = self._found[key] = _Inspection(deployment)
            is_old = known.check is not None and known.check.kind == "unready" and now - known.at > LOOK_AGAIN
            if known.is_under_way or (known.check is not None and not is_old and known.is_deep >= deep):
                return
            known.is_under_way = True
        threading.Thread(
            target=self._look, args=(deployment, known, deep), name=f"sage-{deployment.name}.check", daemon=True
        ).start()

    def checks(self, name: str) -> tuple[Check, ...]:
        """What is known of a topology's versions."""
        with self._guard:
            found = [each.check for (owner, _), each in self._found.items() if owner == name and each.check is not None]
        return tuple(sorted(found, key=lambda check: check.version))

    def forget(self, name: str, used: frozenset[int]) -> None:
        """Let what is known of a topology's other versions go."""
        with self._guard:
            for key in [key for key in self._found if key[0] == name and key[1] not in used]:
                del self._found[key]
        self._checker.forget(name, used)

    def _look(self, deployment: Deployment, known: _Inspection, deep: bool) -> None:
        try:
            check = self._checker.check(deployment)
            if deep and not check.problems:
                check = self._opened(deployment)
        except BaseException as error:  # of a module or component, also its sys.exit(): it would be "checked" for ever
            logger.exception("%s: version %d could not be checked", deployment.name, deployment.version)
            check = Check.of(deployment.version, "unready", [Problem(_said(error))])
        if check.problems:
            what = "; ".join(check.problems)
            logger.warning("%s: version %d can't run here: %s", deployment.name, deployment.version, what)
        with self._guard:
            known.check = replace(check, created_at=deployment.created_at)
            known.at, known.is_deep, known.is_under_way = time.monotonic(), deep, False
        self._changed(deployment.name)

    def _opened(self, deployment: Deployment) -> Check:
        plan = self._checker.plan_of(deployment)
        opened = self._make_world(plan)
        try:
            problems = opened.world.bridge.call(_kept_in(open_operators(deployment, plan, opened.world)))
        finally:
            opened.close()
        return Check.of(deployment.version, "unready" if problems else "", problems)


async def _kept_in(opening: Awaitable[tuple[Problem, ...]]) -> tuple[Problem, ...]:
    """What opening found. A component's sys.exit() is found too: it would end the loop, and nobody would hear of it."""
    try:
        return await opening
    except SystemExit as error:
        return (Problem(_said(error)),)


def _said(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"its code ended the program ({error!r})"
    return f"{type(error).__name__}: {error}"
