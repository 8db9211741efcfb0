"""The verbs that change what is desired: what the command line, the dashboard and ``RemoteEnvironment`` call.

Each is one guarded write to the control topic, and workers do the rest; a deploy of another wiring is several (see
``switching``). What waits for workers says so by its name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from sage.cluster import changes
from sage.cluster.cluster_view import ClusterView
from sage.cluster.control_log import ControlLog, not_deployed_yet, worker_key
from sage.cluster.control_topics import ensure_control_topics
from sage.cluster.deployable import refuse_undeployable
from sage.cluster.deploying import DRAIN_TIMEOUT, Deployed, Deploying, Wanted, compared, unfinished
from sage.cluster.deployment import Deployment
from sage.cluster.desired import Desired
from sage.cluster.names import ControlTopics
from sage.cluster.offsets import Kept, offsets_now, put_back
from sage.cluster.progress import Preflight, StageProgress, wait_for_checks, wait_until_settled
from sage.cluster.purging import TIMEOUT, Purged, purge, to_purge
from sage.cluster.session import PATIENCE, ControlSession, who_am_i
from sage.cluster.switching import Say, refuse_half_moved
from sage.cluster.worker.units import units_of
from sage.errors import (
    ChangeRefused,
    Conflict,
    DeadlineExceeded,
    NotFound,
    TransientFailure,
    Unreachable,
)
from sage.plan.diff import PlanDiff
from sage.plan.plan import Plan
from sage.ports import Clock, KafkaClients
from sage.runtime.runs.clock import SystemClock

logger = logging.getLogger("sage.cluster")

Change = Callable[[Desired], Desired]

REST_PATIENCE: Final = 10.0
"""Seconds that drain, stop and delete wait for workers to leave, to write down where they stood."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a deploy would change.

    Attributes:
        diff: against what is deployed.
        expected: the revision that was looked at: ``deploy(expected=)`` is refused when it is another one by then.
        version: the one that is deployed; 0 where none is.
    """

    diff: PlanDiff
    expected: int
    version: int


class Deployer:
    """Writes what is desired.

    Args:
        clients: of the brokers.
        topics: the control topics; made where they are missing.
        who: ``user@host``; this process's by default.
        clock: for the records' times.

    Raises:
        Unreachable, Unauthorized: the brokers.
    """

    def __init__(
        self,
        clients: KafkaClients,
        topics: ControlTopics | None = None,
        *,
        who: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.clients = clients
        self.topics = topics or ControlTopics()
        self.who = who or who_am_i()
        self.clock = clock or SystemClock()
        ensure_control_topics(clients, self.topics)

    def look(self) -> ControlLog:
        """The control topic as it is now; to be closed. Raises Unreachable."""
        log = ControlLog(self.clients, self.topics)
        try:
            log.read_to_end()
        except BaseException:
            log.close()
            raise
        return log

    def session(self, name: str, *, expected: int | None = None) -> ControlSession:
        """The right to write about one topology. Raises Conflict; see ``ControlSession``."""
        return ControlSession(self.clients, self.topics, name, clock=self.clock, who=self.who, expected=expected)

    # -------------------------------------------------------------------------------------- deploying

    def propose(self, plan: Plan, caller: Collection[str] = ()) -> Proposal:
        """What deploying a plan would change; writes nothing.

        Raises:
            NotImportable, InvalidTopology: it can't be deployed.
        """
        refuse_undeployable(plan, caller)
        log = self.look()
        try:
            pointer = log.pointers.get(plan.name)
            diff = compared(log, Wanted.of(plan, caller))
            return Proposal(diff, *((0, 0) if pointer is None else (pointer.revision, pointer.version)))
        finally:
            log.close()

    def deploy(
        self,
        plan: Plan,
        *,
        expected: int | None = None,
        caller: Collection[str] = (),
        message: str = "",
        allow: Collection[str] = (),
        timeout: float = DRAIN_TIMEOUT,
        say: Say = lambda _: None,
    ) -> Deployed:
        """Store a plan as the next version and have it run.

        Mostly that is one transaction, and this returns at once. Where stages have to drain first, because the wiring
        or the partitions change, this returns when they have: workers have to be there for that.

        Args:
            plan: as compiled here, with its code.
            expected: the revision of the pointer that the caller has looked at (0: there was none); ``None`` takes
                whatever is there.
            caller: steps that run in this process.
            message: for ``history``.
            allow: flags of ``sage.plan.diff`` that the diff may need.
            timeout: seconds that draining may take; then the running version goes on, and DeadlineExceeded is raised.
            say: told what is being waited for.

        Raises:
            NotImportable, InvalidTopology: it can't be deployed; or a topic is there with other partitions.
            NotFound: a topic that ``from_topic`` reads is missing.
            ChangeRefused: it would lose something, and no flag says that it shall.
            Conflict: somebody else was first.
            DeadlineExceeded: see ``timeout``.
        """
        refuse_undeployable(plan, caller)
        wanted = Wanted.of(plan, caller, message)
        with self._taken_back(wanted, expected) as session:
            return self._deploying(session, wanted, allow, timeout, say).run()

    def _deploying(
        self, session: ControlSession, wanted: Wanted, allow: Collection[str], timeout: float, say: Say
    ) -> Deploying:
        return Deploying(
            self.clients, self.topics, session, wanted,
            who=self.who, now_ms=self.clock.now_ms, allow=allow, timeout=timeout, say=say,
        )  # fmt: skip

    def check_on_workers(
        self, plan: Plan, *, expected: int | None = None, caller: Collection[str] = (), timeout: float = 60.0
    ) -> tuple[Preflight, int]:
        """Have every live worker check a plan without running it (variables, imports, collections, code).

        Returns what they found, and the revision to ``deploy`` upon. The version is taken back where none can run it.

        Raises:
            InvalidTopology: no worker can run it, with all that is missing.
            NotFound: no worker is online.
            DeadlineExceeded, Conflict: as it says; as of ``deploy``.
        """
        refuse_undeployable(plan, caller)
        wanted = Wanted.of(plan, caller)
        with self._taken_back(wanted, expected, even_begun=True) as session:
            deployment = self._deploying(session, wanted, (), timeout, lambda _: None).candidate()
            view = ClusterView(self.clients, self.topics)
            try:
                found = wait_for_checks(session.log, view, plan.name, deployment.version, timeout)
                found.raise_if_none_can(plan.name)
            finally:
                view.close()
            assert session.pointer is not None, "it was just written"
            return found, session.pointer.revision

    @contextmanager
    def _taken_back(
        self, wanted: Wanted, expected: int | None, *, even_begun: bool = False
    ) -> Iterator[ControlSession]:  # fmt: skip
        """A session. Where the block fails, what workers were given to check is taken back, whatever it fails of: it
        would be "checking" for ever. What has begun stays, to be gone on with, unless ``even_begun``; and so does what
        somebody else has written since."""
        session: ControlSession | None = None
        try:
            with self.session(wanted.plan.name, expected=expected) as session:
                yield session
        except Conflict:
            raise
        except BaseException:
            try:
                self._withdraw(wanted, session, expected, even_begun=even_begun)
            except Exception as error:  # brokers that are away: what is told is why the deploy itself failed
                logger.warning(
                    "%s: it could not be taken back, and may still be being checked: %s", wanted.plan.name, error
                )
            raise

    def _withdraw(
        self, wanted: Wanted, session: ControlSession | None, expected: int | None, *, even_begun: bool
    ) -> None:
        """Take a version back that is only checked, unless somebody else has written since ``session`` did.

        That is found out before the right to write is taken, which would cut off whoever has it now.
        """
        log = self.look()
        try:
            seen, checked = log.pointers.get(wanted.plan.name), unfinished(log, wanted)
        finally:
            log.close()
        if seen is None or checked is None or ((seen.held or seen.leaving) and not even_begun):
            return
        if seen.revision != expected if session is None else seen != session.last:
            return
        with self.session(seen.name, expected=seen.revision) as mine:
            if seen.version == 0:
                mine.forget([seen.key, checked.key])
            else:
                mine.point(changes.withdraw(seen), also=[(checked.key, None)])

    def rollback(
        self,
        name: str,
        version: int | None = None,
        *,
        allow: Collection[str] = (),
        timeout: float = DRAIN_TIMEOUT,
        say: Say = lambda _: None,
    ) -> Deployed:
        """Have an earlier version run again; offsets stay as they are.

        Args:
            version: ``None`` is the one before; the one that runs takes an unfinished deploy back.
            allow, timeout, say: as of ``deploy``.

        Raises:
            NotFound: there is no such version.
            ChangeRefused: the state that is stored can't be read by it; or what else a flag would allow.
            Conflict, DeadlineExceeded: as of ``deploy``.
        """
        with self.session(name) as session:
            current, _ = _running(session.log, name)
            chosen = version if version is not None else _before(session.log, current)
            target = session.log.deployment(name, chosen)
            if chosen == current.version and current.candidate is not None:
                admin = self.clients.admin()
                try:
                    if (unfinished := session.log.deployments.get((name, current.candidate))) is not None:
                        refuse_half_moved(admin, target.decoded(), unfinished.decoded())
                finally:
                    admin.close()
                written = session.point(changes.withdraw(current))
                return Deployed(target, written, PlanDiff(name))
            wanted = Wanted.again(session.log, current.version, target)
            return self._deploying(session, wanted, allow, timeout, say).run()

    # ------------------------------------------------------------------------------------------ verbs

    def change(self, name: str, change: Change, *, expected: int | None = None) -> Desired:
        """Apply a pure change to a topology's pointer.

        Raises:
            NotFound: it is not deployed.
            Conflict: somebody else was first.
            SageError: what ``change`` raises.
        """
        with self.session(name, expected=expected) as session:
            return session.point(change(session.log.current(name)))

    def scale(self, name: str, counts: Mapping[str, int]) -> Desired:
        """How many workers host each step's stage, as far as they can be of use: the reason says where they can't.

        Names may be of steps or stages. Raises UnknownName, InvalidTopology.
        """
        with self.session(name) as session:
            current, running = _running(session.log, name)
            wanted = {running.stage_of(step): count for step, count in counts.items()}
            widths = {stage: unit.width for unit in units_of(running) for stage in unit.stages}
            return session.point(changes.scale(current, running.stages, wanted, widths))

    def restart(self, name: str, steps: Collection[str] = ()) -> Desired:
        """Start the actors of these steps anew, one worker after the other; of all steps without names."""
        with self.session(name) as session:
            current, running = _running(session.log, name)
            which = [running.stage_of(step) for step in steps]
            return session.point(changes.restart(current, running.stages, which))

    def pause(self, name: str) -> Desired:
        """Have it stand still; workers stay members of its groups, and offsets stay."""
        return self.change(name, changes.pause)

    def resume(self, name: str) -> Desired:
        """Have it run (again); offsets that Kafka has forgotten meanwhile are put back."""
        with self.session(name) as session:
            current = session.log.current(name)
            resumed = changes.resume(current)
            if current.offsets:
                admin = self.clients.admin()
                try:
                    put_back(self.clients, admin, current.offsets)
                finally:
                    admin.close()
            return session.point(resumed)

    def drain(self, name: str, *, patience: float = REST_PATIENCE) -> Desired:
        """Have its sources give nothing more, and everything that is on its way be finished.

        Where its groups stand is written down now, and again when they are at rest, if that is within ``patience``
        seconds (``at_rest`` says so). After longer work ``wait_settled`` does it: Kafka forgets groups that nobody is
        in after ``offsets.retention.minutes``, and what was not written down then is done again.
        """
        return self._left(name, changes.drain, patience)

    def stop(self, name: str, *, patience: float = REST_PATIENCE) -> Desired:
        """Have all workers leave its groups; see ``drain``."""
        return self._left(name, changes.stop, patience)

    def delete(self, name: str, *, patience: float = REST_PATIENCE) -> Desired:
        """Stop it and take it off the lists; topics, groups and versions stay. ``purge`` removes those.

        Where its groups stand is written down as of ``drain``: a later deploy goes on there.
        """
        return self._left(name, changes.delete, patience)

    def _left(self, name: str, change: Change, patience: float) -> Desired:
        with self.session(name) as session:
            current = session.log.current(name)
            changed = change(current)
            if current.version == 0:  # it never ran
                return session.point(changed)
            written = session.point(changes.keep_offsets(changed, self._offsets(session.log, current)))
        try:
            return self._await_rest(written, patience)
        except (DeadlineExceeded, NotFound, TransientFailure, Unreachable) as error:
            # What was asked for is done; only the last word on its offsets is missing, and ``at_rest`` says that.
            logger.info("%s: not known to be at rest: %s", name, error.message)
            return written

    def _await_rest(self, left: Desired, patience: float) -> Desired:
        log, view = self.look(), ClusterView(self.clients, self.topics)
        try:
            view.read_fresh()
            if left.state == "drained" and not view.live:  # whoever comes later has to drain it
                return left
            wait_until_settled(log, view, left.name, patience)
        finally:
            log.close()
            view.close()
        return self._rest(left)

    def _rest(self, left: Desired) -> Desired:
        """Write down where its groups stand, now that nobody is in them; nothing where somebody has changed it."""
        try:
            with self.session(left.name, expected=left.revision) as session:
                resting = changes.keep_offsets(left, self._offsets(session.log, left), at_rest=True)
                return session.point(replace(resting, reason=f"{left.state}, at rest"))
        except Conflict as error:
            logger.info("%s: %s", left.name, error.message)
            return left

    def _offsets(self, log: ControlLog, current: Desired) -> Kept:
        admin = self.clients.admin()
        try:
            return offsets_now(admin, log.deployment(current.name, current.version).decoded())
        finally:
            admin.close()

    def purge(self, name: str, timeout: float = TIMEOUT) -> Purged:
        """Remove the topics, groups and versions of a deleted topology, when its workers have left.

        Raises:
            ChangeRefused: it was not deleted.
            DeadlineExceeded: somebody is still in one of its groups after ``timeout`` seconds.
        """
        with self.session(name) as session:
            return purge(self.clients, self.topics, session, timeout)

    def purgeable(self, name: str) -> Purged:
        """What ``purge`` would remove."""
        log, admin = self.look(), self.clients.admin()
        try:
            return to_purge(admin, log, name)
        finally:
            log.close()
            admin.close()

    def wait_settled(
        self, name: str, timeout: float, *, show: Callable[[list[StageProgress]], None] = lambda _: None
    ) -> None:
        """Wait until the workers are where the pointer says; of a topology that drained or stopped, write down where
        its groups stand.

        Args:
            timeout: seconds.
            show: given the progress at each look.

        Raises:
            NotFound: it is not deployed.
            DeadlineExceeded: not in time: what was waited for, and why as far as a worker says.
        """
        log, view = self.look(), ClusterView(self.clients, self.topics)
        try:
            view.read_fresh()
            wait_until_settled(log, view, name, timeout, show=show)
            current = log.pointers[name]
        finally:
            log.close()
            view.close()
        if current.state in {"drained", "stopped", "deleted"} and not current.at_rest:
            self._rest(current)

    # ---------------------------------------------------------------------------------------- workers

    def drain_worker(self, worker: str, *, drain: bool = True) -> None:
        """Have a worker give everything away and take nothing new on; ``drain=False`` takes that back.

        Raises:
            TransientFailure: the brokers did not take it.
        """
        producer = self.clients.producer()
        try:
            value = b'{"format": 1, "drain": true}' if drain else None
            producer.produce(self.topics.topologies, value, worker_key(worker), partition=0)
            left = producer.flush(PATIENCE)
            failures = producer.take_failures()
            if left or failures:
                reason = failures[0].reason if failures else f"no answer within {PATIENCE:.0f} s"
                raise TransientFailure(f"{self.topics.topologies} did not take it: {reason}", where=worker)
        finally:
            producer.close()


def _running(log: ControlLog, name: str) -> tuple[Desired, Deployment]:
    """What is desired of a topology, and the version that it names.

    Raises:
        NotFound: it is not deployed.
        ChangeRefused: it never was: its first version is only checked.
    """
    current = log.current(name)
    if current.version == 0:
        raise ChangeRefused(not_deployed_yet(name), where=name)
    return current, log.deployment(name, current.version)


def _before(log: ControlLog, current: Desired) -> int:
    """The version that ran before the one that runs."""
    earlier = [pointer.version for pointer in log.changes(current.name) if pointer.version not in {0, current.version}]
    stored = [version for version in log.versions(current.name) if version < current.version]
    chosen = next((version for version in reversed(earlier) if version in log.versions(current.name)), None)
    if chosen is None and not stored:
        raise ChangeRefused(f"there is no version before {current.version}", where=current.name)
    return chosen if chosen is not None else stored[-1]
