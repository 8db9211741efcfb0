"""From a stage of the plan to its actor: the parts put together."""

from __future__ import annotations

from collections.abc import Mapping

from sage.errors import InvalidTopology
from sage.plan.plan import Plan, Stage
from sage.ports import KafkaClients
from sage.runtime.actor import Actor
from sage.runtime.async_task import AsyncTask
from sage.runtime.binding import BoundStep, bind, bind_copy
from sage.runtime.bridge import Bridge
from sage.runtime.outbox import Outbox
from sage.runtime.source_host import HostedSource
from sage.runtime.stage_context import StageSetting
from sage.runtime.sync_task import SyncTask
from sage.runtime.task import Task
from sage.spec.component import Source
from sage.spec.context import Services


def bind_stage(plan: Plan, stage: Stage, services: Services, environ: Mapping[str, str]) -> list[BoundStep]:
    """The stage's steps, callable. Raises InvalidTopology or MissingVariable."""
    if not stage.steps:
        return [bind_copy(stage.name, plan.name, services)]
    first, *others = stage.steps
    bound = [bind(first, stage.options, topology=plan.name, services=services, environ=environ)]
    defaults = plan.topology.defaults
    for step in others:
        options = step.options.over(defaults)
        bound.append(bind(step, options, topology=plan.name, services=services, environ=environ))
    return bound


def assemble_actor(setting: StageSetting, clients: KafkaClients, bridge: Bridge) -> Actor:
    """The actor of a stage that reads topics."""
    stage = setting.stage
    producer = clients.producer()
    task: Task
    if stage.execution == "sync":
        outbox = Outbox(producer, setting.plan.dead_letter_topic)
        task = SyncTask(setting, outbox, bridge.call)
        consumer = clients.consumer(stage.group)
    else:
        asynchronous = AsyncTask(setting, producer, bridge)
        task = asynchronous
        prefetch = {"queued.min.messages": 2 * asynchronous.window_size, "queued.max.messages.kbytes": 8192}
        consumer = clients.consumer(stage.group, config=prefetch)
    return Actor(setting, consumer, task)


def assemble_source(setting: StageSetting) -> HostedSource:
    """A source stage, ready to be opened."""
    (step,) = setting.steps
    if not isinstance(step.component, Source):
        raise InvalidTopology(f"{step.name!r} is no source", where=setting.plan.name)
    return HostedSource(setting, step.component)
