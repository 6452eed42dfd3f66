"""The operators' documentation, alerts and dashboard match the code."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.document.readme import filled
from service.losses import CATALOGUE
from service.settings import Settings, variable
from service.telemetry.metrics import METRICS

ROOT = Path(__file__).parents[1]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "lossd.json").read_text())
SERIES = {
    f"{metric.name}{suffix}": {*metric.labels, "instance", "job", *(["le"] if suffix == "_bucket" else [])}
    for metric in METRICS
    for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
}
EXPRESSIONS = [alert["expr"] for alert in ALERTS] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]


def test_the_generated_tables_are_up_to_date() -> None:
    assert filled(CATALOGUE, OPERATIONS) == OPERATIONS, "run `make docs`"


def test_every_setting_and_every_metric_is_told_and_no_other() -> None:
    settings = {variable(name) for name in Settings.model_fields}
    assert set(re.findall(r"\bLOSSD_[A-Z_]*[A-Z]", OPERATIONS)) == settings
    metrics = {metric.name for metric in METRICS}
    assert set(re.findall(r"\blossd_[a-z_]*[a-z]", OPERATIONS)) == metrics


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_has_a_runbook_that_it_points_at(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert OPERATIONS.count(f"\n### {name}\n") == 1
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
    assert {"summary", "description"} <= alert["annotations"].keys()
    assert alert["labels"]["severity"] in ("critical", "warning", "info")


def test_every_runbook_has_its_alert() -> None:
    assert set(re.findall(r"\n### (Lossd\w+)\n", OPERATIONS)) == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_is_asked_for_exists(expression: str) -> None:
    used = re.findall(r"\b(lossd_\w+)(?:\{(.*?)\})?(?=[\[ )]|$)", expression.replace("{name}", "<name>"))
    assert used or expression.startswith("up{")
    for name, matchers in used:
        assert name in SERIES, name
        assert set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", matchers)) <= SERIES[name]
    labels = {label for by in re.findall(r"\bby \((.*?)\)", expression) for label in by.split(", ")}
    assert labels <= set[str]().union(*(SERIES[name] for name, _ in used))


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "docs" / "operations.md", ROOT / "SECURITY.md"):
        text = page.read_text()
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (page.parent / target).exists(), target
        for heading in re.findall(r"\]\(#([\w-]+)\)", text):
            assert heading in {h.lower() for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}, heading


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for at in (panel["gridPos"] for panel in panels):
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24 and not cells & taken
        taken |= cells


def test_compose_mounts_what_there_is() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["observability"]
        for volume in services[name]["volumes"]:
            assert (ROOT / volume.split(":")[0]).is_dir()
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
    for path in GRAFANA.rglob("*.yml"):
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1


@pytest.mark.parametrize(
    "command",
    [
        ["check", "rules", "alerts.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "alerts.test.yml"],
    ],
)
def test_promtool_agrees(command: list[str]) -> None:
    if not (promtool := shutil.which("promtool")):
        pytest.skip("there is no promtool on this machine")
    ended = subprocess.run(
        [promtool, *command], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
