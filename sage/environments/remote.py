"""A topology on the workers of a cluster."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.cluster.deployable import caller_steps
from sage.cluster.deployer import Deployer
from sage.cluster.deploying import DRAIN_TIMEOUT
from sage.cluster.names import ControlTopics
from sage.cluster.worker_counts import WorkerCounts
from sage.environments.local import LocalEnvironment
from sage.environments.tracebacks import short_traceback
from sage.errors import InvalidTopology, SageError
from sage.plan.plan import Plan
from sage.runtime.runs.report import RunReport, with_steps
from sage.spec.options import Guarantee, Options

if TYPE_CHECKING:
    from sage.ports import KafkaClients

logger = logging.getLogger("sage.cluster")

WAIT: float = 60.0
"""Seconds in which the workers have to run what was submitted."""


class RemoteEnvironment(LocalEnvironment):
    """Builds a topology and deploys it to the workers of a cluster. A context manager.

    It has the face of a ``LocalEnvironment``; what differs is who runs the steps. Workers import them: a function has
    to be in a module that they have, and code is never sent. Components that belong to this program (``FileSource``,
    ``from_collection``, ``TerminalSink``, ``collect``) run in this process, from ``submit`` to ``stop``; the rest goes
    on after ``close``, until `sage topology drain` or `delete`.

    Args:
        name: the topology's name; topics and groups hang on it.
        bootstrap_servers: the brokers; else ``SAGE_BOOTSTRAP_SERVERS``, the current context of `sage config`, or those
            of `sage up` in ``data_dir``. None are started.
        data_dir: the folder of this process's own state.
        guarantee, defaults, kafka, resume: as of a ``LocalEnvironment``; ``resume`` is for the sources of this process.
        control_prefix: of the control topics; else as `sage config` and ``SAGE_CONTROL_PREFIX`` say.
        wait: seconds in which workers have to check and run what was submitted; 0 does not wait for them.
        allow: what may be lost by a change of what is deployed, such as ``--allow-orphans``.
    """

    def __init__(
        self,
        name: str,
        *,
        bootstrap_servers: str | None = None,
        data_dir: str | Path = ".sage",
        guarantee: Guarantee = "at_least_once",
        defaults: Options | Mapping[str, Any] | None = None,
        kafka: Mapping[str, Any] | None = None,
        resume: bool = False,
        control_prefix: str | None = None,
        wait: float = WAIT,
        allow: Collection[str] = (),
    ) -> None:
        super().__init__(
            name, bootstrap_servers=bootstrap_servers, data_dir=data_dir, guarantee=guarantee, defaults=defaults,
            kafka=kafka, resume=resume,
        )  # fmt: skip
        if control_prefix is not None:
            self._control_topics = ControlTopics(control_prefix)
        self._wait = wait
        self._allow = tuple(allow)

    @property
    def clients(self) -> KafkaClients:
        """Clients of the cluster's brokers. Raises Unreachable where none are named."""
        if self._clients is None:
            from sage.wiring.brokers import find_brokers

            found = find_brokers(self._bootstrap_servers, self._data_dir)
            self._clients = found.clients(self.topology.kafka, self._client_config)
            self._control_topics = self._control_topics or found.control_topics
        return self._clients

    @property
    def deployer(self) -> Deployer:
        """All verbs on what is deployed: scale, pause, drain, rollback and the rest. Raises Unreachable."""
        return Deployer(self.clients, self._control_topics)

    @short_traceback
    def submit(self) -> None:
        """Validate, plan, deploy, and start this process's own steps. The same plan again changes nothing.

        Raises:
            NotImportable: workers can't import a step's code.
            InvalidTopology: the topology can't run as it is, or no worker can run it.
            ChangeRefused: what is deployed would lose something by it.
            NotFound: no worker is online.
            Conflict: somebody else deployed it at the same time.
            DeadlineExceeded: the workers did not run it in time.
        """
        plan = self.plan()
        if self._run is not None:
            if plan.hash == self._running_hash and not self._run.runner.failed:
                return
            self.stop()
        caller = caller_steps(plan)
        self._deploy(plan, caller)
        from sage import app

        self._is_asked_to_end = False
        self._run = app.start_run(
            plan, self.clients, self._services, fresh=not self._resume, instance=self._instance, only=caller
        )
        self._running_hash = plan.hash

    def _deploy(self, plan: Plan, caller: tuple[str, ...]) -> None:
        deployer = self.deployer
        proposal = deployer.propose(plan, caller)
        expected = proposal.expected
        waits = self._wait > 0 and any(stage.name not in caller for stage in plan.stages)
        if waits and not proposal.diff.is_empty:
            preflight, expected = deployer.check_on_workers(plan, expected=expected, caller=caller, timeout=self._wait)
            for problem in preflight.problems:
                logger.warning("%s: not everywhere: %s", plan.name, problem)
        deployer.deploy(
            plan, expected=expected, caller=caller, allow=self._allow, timeout=max(self._wait, DRAIN_TIMEOUT),
            say=lambda line: logger.info("%s: %s", plan.name, line),
        )  # fmt: skip
        if waits:
            deployer.wait_settled(plan.name, self._wait)

    @short_traceback
    def run_once(self, timeout: float | str | None = None) -> RunReport:
        """Have this program's sources give all they have now; return when all of it, and all it caused, has reached
        sinks or dead letters, on whatever worker.

        The report counts the steps of workers by what they have said since this was called, for which some seconds are
        waited unless the time is up: all that they did, whoever sent it, and on a topology that is busy with others'
        records up to 5 s of before. What a worker that died did in its last seconds nobody knows, and what it had not
        committed is counted again where it is done again. ``extra["silent"]`` names workers that live and said
        nothing; ``extra["uncounted"]`` says why nobody could be heard.

        Raises:
            InvalidTopology: a source runs on workers: it has no end that could be waited for.
            SageError: a step of this process stopped.
        """
        limit = None if timeout is None else self._limit(timeout)
        plan = self.plan()
        here = caller_steps(plan)
        elsewhere = [stage.name for stage in plan.stages if stage.execution == "source" and stage.name not in here]
        if elsewhere:
            raise InvalidTopology(
                f"{', '.join(elsewhere)} runs on workers, for ever; use run_streaming(), or a source of this program",
                where=plan.name,
            )
        self.submit()
        assert self._run is not None
        runner = self._run.runner
        if all(stage.name in here for stage in plan.stages):
            return runner.run_once(limit)
        counts = WorkerCounts(self.clients, self.deployer.topics, plan.name)
        try:
            return _with_workers(runner.run_once(limit), plan, counts)
        finally:
            counts.close()


def _with_workers(report: RunReport, plan: Plan, counts: WorkerCounts) -> RunReport:
    """The report with what workers say; what keeps it from being known does not take the run's own numbers away."""
    extra = dict(report.extra)
    try:
        if not report.complete:
            counts.read()  # the time is up: what has been said by now
        elif silent := counts.wait():
            extra["silent"] = silent
    except SageError as error:
        extra["uncounted"] = str(error)
    return with_steps(replace(report, extra=extra), plan, counts.numbers())
