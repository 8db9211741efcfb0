from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from sage.memory.milvus_names import logical_name, physical_name


@given(st.text(min_size=1, max_size=30))
@example("a-b")
@example("_u2d_")
@example("a_u5f_u2d_")
@example("9lives")
@example("_u_u2d_")
def test_every_name_becomes_one_that_milvus_takes_and_comes_back(name: str) -> None:
    physical = physical_name(name)
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", physical)
    assert logical_name(physical) == name


def test_plain_names_stay_as_they_are() -> None:
    assert physical_name("vdb_test") == "vdb_test"
