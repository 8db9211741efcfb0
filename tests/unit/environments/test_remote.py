"""The cluster's environment: a plain answer until the control plane is there."""

from __future__ import annotations

import pytest

from sage import RemoteEnvironment
from sage.errors import NotInThisVersion


def test_it_says_at_once_what_to_do_instead() -> None:
    with pytest.raises(
        NotInThisVersion, match=r"RemoteEnvironment\('qa'\): .*not in this version; run the same"
    ) as refusal:
        RemoteEnvironment("qa", bootstrap_servers="localhost:9092")
    assert refusal.value.exit_code == 3
