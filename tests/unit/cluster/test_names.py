"""Names of the control topics, and who must not have them."""

from __future__ import annotations

import pytest

from sage.cluster.deployer import Deployer
from sage.cluster.names import ControlTopics
from sage.errors import InvalidTopology
from sage.ports import TopicSpec
from sage.testing.broker import InMemoryClients
from tests.unit.cluster.pipelines import asking


@pytest.mark.parametrize("prefix", ["", "a.b", "a b", "ä", "x" * 101])
def test_a_prefix_that_could_be_taken_for_something_else_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidTopology, match="control prefix"):
        ControlTopics(prefix)


def test_a_topology_never_has_the_control_topics_for_its_own() -> None:
    clients, topics = InMemoryClients(), ControlTopics("team")
    clients.admin().create([TopicSpec("team-in", 1)])
    deployer = Deployer(clients, topics)
    with pytest.raises(InvalidTopology, match="team: is the prefix of this cluster's control topics"):
        deployer.deploy(asking("team"))
    with pytest.raises(InvalidTopology, match="team: is the prefix"):
        deployer.purge("team")
    assert set(topics.all) <= set(clients.topics())
