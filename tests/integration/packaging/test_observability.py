"""Alerts and dashboard ask for what a worker really exposes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ruamel.yaml import YAML

from sage.cluster.worker.health import EXPOSED

ROOT = Path(__file__).parents[3] / "infra"
NAME = re.compile(r"\b(?:sage|kafka|process)_[a-z_]+")


def queries() -> list[str]:
    """Every query of both files."""
    rules = YAML(typ="safe").load(ROOT / "prometheus" / "alerts.yml")
    dashboard = json.loads((ROOT / "grafana" / "dashboards" / "sage.json").read_text())
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return asked + [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_each_query_asks_for_metrics_that_exist() -> None:
    asked = {name for query in queries() for name in NAME.findall(query)}
    assert asked
    assert asked <= set(EXPOSED)


def test_no_panel_shares_an_id_or_a_place() -> None:
    panels = json.loads((ROOT / "grafana" / "dashboards" / "sage.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
