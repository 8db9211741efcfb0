"""What each verb makes of a pointer: (what is desired, what is asked for) -> what is desired then. No I/O.

All of them take the pointer as it is and give the next one; who, when, and the revision are the deployer's. What cannot
be is raised as a SageError that says what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from sage.cluster.desired import Desired, Leaving
from sage.errors import ChangeRefused, InvalidTopology, NotFound, UnknownName
from sage.spec.suggest import hint


def candidate(current: Desired | None, name: str, version: int) -> Desired:
    """Have the workers check a version without running it."""
    if current is None:
        return Desired(name, 0, candidate=version, reason=f"check of version {version}")
    return replace(current, candidate=version, reason=f"check of version {version}")


def withdraw(current: Desired) -> Desired:
    """Take a candidate back, with all that was held and drained for its sake."""
    leaving = tuple(each for each in current.leaving if each.version != current.version)
    return replace(current, candidate=None, held=(), leaving=leaving, reason="candidate withdrawn")


def deploy(
    current: Desired | None,
    name: str,
    version: int,
    stages: Collection[str],
    *,
    leaving: tuple[Leaving, ...] = (),
    moved: Mapping[str, str] | None = None,
    reason: str = "",
) -> Desired:
    """Make ``version`` the one that runs.

    A paused topology stays paused; one that was drained, stopped or deleted runs again.

    Args:
        stages: those of the new version: what was said of others is forgotten.
        leaving: stages of older versions that have to finish their input first.
        moved: old name -> new name of stages, whose scale and restarts go along.
    """
    reason = reason or f"version {version}"
    if current is None:
        return Desired(name, version, leaving=leaving, reason=reason)
    names = moved or {}
    return replace(
        current,
        version=version,
        candidate=None,
        state="paused" if current.state == "paused" else "running",
        scale=_kept(current.scale, stages, names),
        restarts=_kept(current.restarts, stages, names),
        # What still drains from an earlier change goes on draining.
        leaving=(*(each for each in current.leaving if each.version not in {version, current.version}), *leaving),
        held=(),
        at_rest=False,
        reason=reason,
    )


def _kept(values: Mapping[str, int], stages: Collection[str], moved: Mapping[str, str]) -> dict[str, int]:
    renamed = {moved.get(stage, stage): value for stage, value in values.items()}
    return {stage: value for stage, value in renamed.items() if stage in stages}


def hold(current: Desired, version: int, held: tuple[str, ...], leaving: tuple[Leaving, ...]) -> Desired:
    """Before ``version`` can take over: these stages of the running one stand still, those drain and leave."""
    return replace(current, candidate=version, held=held, leaving=leaving, reason=f"draining for version {version}")


def move(current: Desired | None, version: int) -> Desired:
    """Nobody is at work any more on what ``version`` takes over, and it is about to be moved."""
    assert current is not None, "what is moved has run"
    return replace(current, reason=f"moving to version {version}")


def scale(
    current: Desired, stages: Collection[str], counts: Mapping[str, int], widths: Mapping[str, int] | None = None
) -> Desired:
    """How many workers host a stage; the reason says where that is more than can be of use.

    Args:
        stages: those that there are.
        counts: stage -> workers.
        widths: stage -> how many workers can be of use; 0, and a stage that is left out, is not known.

    Raises:
        UnknownName, InvalidTopology: a stage that is not there; no worker at all.
    """
    _alive(current)
    for stage, count in counts.items():
        _known(current, stages, stage)
        if count < 1:
            raise InvalidTopology(f"{stage}={count}: at least one worker; `sage topology pause` stands it still")
    shown = ", ".join(_scaled(stage, count, (widths or {}).get(stage, 0)) for stage, count in counts.items())
    return replace(current, scale={**current.scale, **counts}, reason=f"scale {shown}")


def _scaled(stage: str, count: int, width: int) -> str:
    return f"{stage}={count} of which {width} can be of use" if 0 < width < count else f"{stage}={count}"


def pause(current: Desired) -> Desired:
    """Stand still and stay a member. Raises ChangeRefused unless it runs."""
    _alive(current)
    if current.state not in {"running", "paused"}:
        raise ChangeRefused(f"it is {current.state}, there is nothing to pause", where=current.name)
    return replace(current, state="paused", reason="pause")


def resume(current: Desired) -> Desired:
    """Run, or run again after pause, drain or stop."""
    _alive(current)
    return replace(current, state="running", offsets={}, at_rest=False, reason="resume")


def restart(current: Desired, stages: Collection[str], which: Collection[str] = ()) -> Desired:
    """Start actors anew: of ``which``, or of all stages. Raises UnknownName, ChangeRefused."""
    _alive(current)
    if current.state not in {"running", "paused"}:
        raise ChangeRefused(f"it is {current.state}; `sage topology resume {current.name}`", where=current.name)
    for stage in which:
        _known(current, stages, stage)
    chosen = which or stages
    restarts = {**current.restarts, **{stage: current.restarts.get(stage, 0) + 1 for stage in chosen}}
    return replace(current, restarts=restarts, reason=f"restart {', '.join(sorted(which)) or 'all'}")


def drain(current: Desired) -> Desired:
    """Sources give nothing more; what is on its way is finished, then it is stopped. Raises ChangeRefused."""
    _alive(current)
    if current.state in {"paused", "stopped"}:
        raise ChangeRefused(
            f"it is {current.state}, so nothing would move; `sage topology resume {current.name}` first",
            where=current.name,
        )
    return replace(current, state="drained", reason="drain")


def stop(current: Desired) -> Desired:
    """Leave all groups; what was read and not finished is read again after ``resume``."""
    _alive(current)
    return replace(current, state="stopped", reason="stop")


def delete(current: Desired) -> Desired:
    """Stop it and take it off the lists; topics and groups stay."""
    if current.state == "deleted":
        raise NotFound("there is no such topology: it was deleted", where=current.name)
    return replace(
        current, state="deleted", candidate=None, leaving=(), held=(), scale={}, restarts={}, reason="delete"
    )


def keep_offsets(current: Desired, found: Mapping[str, Mapping[str, int]], *, at_rest: bool = False) -> Desired:
    """Write down where the groups of a topology that was told to leave stand (decision 23).

    Args:
        found: what Kafka has of them now; of what it has forgotten, what was written down before stays.
        at_rest: nobody is in them any more.
    """
    groups = {*current.offsets, *found}
    offsets = {group: {**current.offsets.get(group, {}), **found.get(group, {})} for group in sorted(groups)}
    return replace(current, offsets=offsets, at_rest=at_rest)


def _alive(current: Desired) -> None:
    """Raises NotFound for what was deleted or never ran."""
    if current.state == "deleted":
        raise NotFound("there is no such topology: it was deleted; deploy it again", where=current.name)
    if current.version == 0:
        raise ChangeRefused("it has not been deployed yet: its first version is being checked", where=current.name)


def _known(current: Desired, stages: Collection[str], stage: str) -> None:
    if stage not in stages:
        raise UnknownName(f"no stage {stage!r}; {hint(stage, stages, what='stages')}", where=current.name)
