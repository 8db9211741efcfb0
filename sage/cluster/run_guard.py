"""A process that runs a topology by itself must not share the groups of another plan that is deployed (decision 24)."""

from __future__ import annotations

import logging

from sage.cluster.control_log import ControlLog
from sage.cluster.names import ControlTopics
from sage.errors import Conflict, Unauthorized
from sage.plan.plan import Plan
from sage.ports import KafkaClients

logger = logging.getLogger("sage.cluster")


def refuse_other_plan(clients: KafkaClients, topics: ControlTopics | None, plan: Plan) -> None:
    """Raise where another plan is deployed under the same name, and runs: two plans would share one plan's records.

    Args:
        topics: the control topics; the usual ones unless given.

    Raises:
        Conflict: another plan of that name is deployed.
        Unreachable: nobody answers.
    """
    topics = topics or ControlTopics()
    admin = clients.admin()
    try:
        if not admin.describe([topics.topologies]):
            return  # nothing was ever deployed here
    except Unauthorized as error:
        logger.info("%s: whether another plan is deployed can't be seen: %s", plan.name, error)
        return
    finally:
        admin.close()
    log = ControlLog(clients, topics)
    try:
        log.read_to_end()
        pointer = log.pointers.get(plan.name)
        if pointer is None or pointer.version == 0 or pointer.state in {"stopped", "drained", "deleted"}:
            return
        running = log.deployment(plan.name, pointer.version)
        if running.plan["hash"] != plan.hash:
            raise Conflict(
                f"version {pointer.version} is deployed on {clients.address} and is another plan; deploy this one "
                f"(`sage topology deploy`), drain that one (`sage topology drain {plan.name}`), or use another name",
                where=plan.name,
            )
    finally:
        log.close()
