"""From a stage of the plan to its actor: the parts put together."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from sage.errors import InvalidTopology
from sage.plan.plan import Plan, Stage
from sage.ports import KafkaClients, StateStores
from sage.runtime.actors.actor import Actor
from sage.runtime.actors.task import Task
from sage.runtime.actors.transaction import Transactions
from sage.runtime.batches.outbox import Outbox
from sage.runtime.batches.sync_task import SyncTask
from sage.runtime.concurrent.async_task import AsyncTask
from sage.runtime.concurrent.bridge import Bridge
from sage.runtime.journal import Journal
from sage.runtime.retries.intake import first_input
from sage.runtime.retries.parking import scan_parked
from sage.runtime.sources.source_host import HostedSource
from sage.runtime.state.stage_state import StageState
from sage.runtime.steps.binding import BoundStep, bind, bind_copy
from sage.runtime.steps.stage_context import StageSetting
from sage.spec.component import Source
from sage.spec.context import Services

logger = logging.getLogger("sage.runtime")

FETCH_BYTES = 128 * 1024
"""Bytes fetched of one partition at once by a stage whose calls wait; a larger record comes alone."""


def bind_stage(plan: Plan, stage: Stage, services: Services, environ: Mapping[str, str]) -> list[BoundStep]:
    """The stage's steps, callable. Raises InvalidTopology or MissingVariable."""
    if not stage.steps:
        return [bind_copy(stage.name, plan.name, services, converts=stage.converts)]
    first, *others = stage.steps
    bound = [bind(first, stage.options, topology=plan.name, services=services, environ=environ)]
    if stage.execution == "sync" and first.options.timeout is not None:
        logger.warning(
            '%s step "%s": timeout has no effect: nothing ends code on the consumer\'s thread; say blocking: true (in '
            "Python blocking=True) if it waits, or leave timeout out",
            plan.name, first.name,
        )  # fmt: skip
    defaults = plan.topology.defaults
    for other in others:
        options = other.options.over(defaults)
        bound.append(bind(other, options, topology=plan.name, services=services, environ=environ))
    for step in bound:
        step.scope.read_branches = frozenset(o.branch for o in stage.outputs if o.step == step.name and o.branch)
    return bound


def assemble_actor(
    setting: StageSetting, clients: KafkaClients, bridge: Bridge, stores: StateStores | None = None
) -> Actor:
    """The actor of a stage that reads topics; ``stores`` are where its keyed state has its copies, if it has any."""
    stage = setting.stage
    transactions: Transactions | None = None
    # A report for each record that was taken costs as much as its decoding: only where one waits for it.
    waits_for_each = stage.execution != "sync" or bool(stage.changelog_topic)
    sending = {} if waits_for_each else {"delivery.report.only.error": True}
    if setting.plan.topology.guarantee == "exactly_once":
        name = f"{setting.plan.name}.{stage.name}.{uuid.uuid4().hex[:12]}"
        transactions = Transactions(clients, name, clock=setting.clock, stopping=setting.stopping, config=sending)
    scan = partial(
        scan_parked, clients, clock=setting.clock, stopping=setting.stopping, default_topic=first_input(stage)
    )
    config: dict[str, Any] = {}
    if len(stage.inputs) > 1:
        # Records of one key come from equal partitions of all inputs, and share one retry partition (decision 17).
        config["group.remote.assignor"] = "range"
    outbox = Outbox(None if transactions is not None else clients.producer(config=sending), transactions)
    state = _state(setting, clients, stores, outbox)
    task: Task
    if stage.execution == "sync":
        task = SyncTask(setting, outbox, bridge.call, scan, state)
    else:
        journal = Journal(setting, clients) if stage.journal_topic else None
        if transactions is None and state is None:
            waiting = AsyncTask(setting, bridge, scan, journal=journal, producer=outbox.producer)
        else:
            waiting = AsyncTask(setting, bridge, scan, journal=journal, state=state, outbox=outbox)
        task = waiting
        config |= {
            "queued.min.messages": 2 * waiting.window_size, "queued.max.messages.kbytes": 8192,
            # What is fetched of one partition at once stands in front of what comes of the others.
            "fetch.message.max.bytes": FETCH_BYTES,
        }  # fmt: skip
    actor = Actor(setting, clients.consumer(stage.group, config=config), task, clients, transactions)
    if state is not None and transactions is None:
        state.is_ours = actor.is_still_member
    return actor


def _state(
    setting: StageSetting, clients: KafkaClients, stores: StateStores | None, outbox: Outbox
) -> StageState | None:
    if not setting.stage.changelog_topic:
        return None
    if stores is None:
        raise InvalidTopology(
            f"{setting.stage.name!r} keeps state, and there is no place for it", where=setting.plan.name
        )
    state = StageState(setting, clients, stores)
    state.check_size = outbox.check_size  # one record pays for a state that the changelog would not take
    return state


def assemble_source(setting: StageSetting) -> HostedSource:
    """A source stage, ready to be opened."""
    (step,) = setting.steps
    if not isinstance(step.component, Source):
        raise InvalidTopology(f"{step.name!r} is no source", where=setting.plan.name)
    return HostedSource(setting, step.component)
