"""Rules, alerts and dashboards: tested by promtool, and made of metrics that exist and are documented."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flightdeck.cluster.commands import CommandFailed
from flightdeck.delivery.manifests import alerts
from services.predictor.metrics import Metrics

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "k8s" / "components" / "monitoring"
DASHBOARDS = ROOT / "k8s" / "components" / "grafana" / "dashboards"
WORDS = {"and", "or", "unless", "by", "on", "ignoring", "without", "group_left", "group_right", "bool", "offset"}
SUFFIXES = ("_bucket", "_sum", "_count")


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """From the PATH, else from Prometheus' image."""
    try:
        program = alerts.promtool(ROOT)
    except (alerts.NoPromtool, CommandFailed) as error:
        pytest.skip(f"NOT TESTED: no rule was evaluated: {error}")
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in sorted(MONITORING.glob("rules/*.yaml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def dashboards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def queries(node: Any) -> Iterator[str]:
    """Every PromQL expression of a dashboard."""
    if isinstance(node, dict):
        if isinstance(node.get("expr"), str):
            yield node["expr"]
        for value in node.values():
            yield from queries(value)
    elif isinstance(node, list):
        for value in node:
            yield from queries(value)


def names_in(expression: str) -> set[str]:
    """Names of metrics in PromQL."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)", " ", bare)
    return {
        found[1]
        for found in re.finditer(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)(?!\w)(?!\s*\()", bare)
        if found[1] not in WORDS
    }


def exposed() -> dict[str, Any]:
    """Families of the predictor's registry, by their name in the text format."""
    metrics = Metrics(model="m", version="1", sha256="s", feature_service="f", image="i")
    metrics.observe("/v1/predict", 200, 0.01)
    found = {}
    for family in metrics.collect():
        found[f"{family.name}_total" if family.type == "counter" else family.name] = family
    return found


def documented(part: str) -> dict[str, list[str]]:
    """Name -> its row, of one table in docs/metrics.md."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    section = text.split(f"\n## {part}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {name: [cell.strip() for cell in cells] for cells in rows for name in re.findall(r"`([^`]+)`", cells[0])}


def known() -> set[str]:
    """Every name that may be asked for."""
    found = set(exposed()) | {rule["record"] for rule in rules() if "record" in rule}
    text = (ROOT / "docs" / "metrics.md").read_text()
    found |= set(re.findall(r"`(process_\w+)`", text))
    for part in ("Predictor", "Gateway", "Prometheus"):
        for name, row in documented(part).items():
            found |= {name} | ({f"{name}{suffix}" for suffix in SUFFIXES} if row[1] == "histogram" else set())
    return found


def test_the_rules_say_of_planted_figures_what_they_should():
    done = promtool("test", "rules", relative(Path(__file__).parent / "rules_test.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_configuration_are_valid():
    done = promtool("check", "rules", *(relative(path) for path in sorted(MONITORING.glob("rules/*.yaml"))))
    assert done.returncode == 0, done.stdout + done.stderr
    done = promtool("check", "config", "--syntax-only", relative(MONITORING / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rules_file_is_deployed():
    (made,) = [
        it for it in yaml.safe_load((MONITORING / "kustomization.yaml").read_text())["configMapGenerator"]
        if it["name"] == "prometheus-rules"
    ]  # fmt: skip
    assert sorted(made["files"]) == sorted(f"rules/{path.name}" for path in MONITORING.glob("rules/*.yaml"))


@pytest.mark.parametrize("alert", [it for it in rules() if "alert" in it], ids=lambda it: it["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(alert: dict[str, Any]):
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"]["summary"]
    page = ROOT / alert["annotations"]["runbook"]
    assert f"`{alert['alert']}`" in page.read_text().splitlines()[0], page


def test_every_alert_is_tried_with_planted_figures():
    text = (Path(__file__).parent / "rules_test.yaml").read_text()
    untried = [it["alert"] for it in rules() if "alert" in it and it["alert"] not in text]
    assert untried == ["PredictorSilent"]  # an `up` of 0, as plain as can be


@pytest.mark.parametrize("rule", rules(), ids=lambda it: it.get("record") or it["alert"])
def test_a_rule_asks_only_for_metrics_that_exist(rule: dict[str, Any]):
    assert names_in(rule["expr"]) <= known()


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_a_dashboard_asks_only_for_metrics_that_exist(name: str):
    asked = {metric for query in queries(dashboards()[name]) for metric in names_in(query)}
    assert asked <= known()


def test_the_predictors_table_is_its_registry():
    table, found = documented("Predictor"), exposed()
    assert set(table) == set(found)
    for name, family in found.items():
        _, kind, unit, labels, meaning = table[name]
        assert kind == family.type, name
        assert unit and meaning, name
        told = set(re.findall(r"`(\w+)`", labels))
        assert told == set(getattr(family, "_labelnames", ())), name


def test_the_rules_table_is_what_is_recorded():
    assert set(documented("Rules")) == {rule["record"] for rule in rules() if "record" in rule}


def test_names_are_found_in_promql():
    query = (
        'sum by (a, le) (rate(x_total{route=~"/v1/.*"}[5m])) / on (b) group_left (c) y:z > 0.5 or topk(1, w offset 5m)'
    )
    assert names_in(query) - {"m"} == {"x_total", "y:z", "w"}
