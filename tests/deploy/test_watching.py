"""Alert rules and the dashboard: what they ask for exists, each alert fires when it shall, and has its runbook."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY, generate_latest

from service.observe import metrics
from tools.manifests import CHART, objects

ROOT = Path(__file__).parents[2]
RULES = CHART / "files" / "rules.yaml"
DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
FIRING = Path(__file__).parent / "rules.test.yaml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
EXPRESSIONS = [rule["expr"] for rule in ALERTS] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]
# As tests/servers/cyrus.py does: unpacked by .ci/run, or installed.
UNPACKED = Path("/usr/local/lib/prometheus/usr/bin/promtool")


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool") or (str(UNPACKED) if UNPACKED.exists() else None)
    if found is None:
        pytest.fail("promtool is missing: apt-get install prometheus (or, as root, .ci/run)")
    return subprocess.run([found, *words], capture_output=True, text=True, check=False)


def samples() -> dict[str, set[str]]:
    """Every sample's name and its labels, of the metrics that there are."""
    assert metrics.EVENTS
    found: dict[str, set[str]] = {}
    for family in REGISTRY.collect():
        if family.name.startswith(("mailbus", "process")):
            collector = REGISTRY._names_to_collectors.get(family.name)  # labels without a value so far have no sample
            labels = set(getattr(collector, "_labelnames", ()))
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
            found |= {family.name + suffix: labels | {"le", "instance", "job"} for suffix in suffixes}
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_metrics_and_labels_that_exist(expression: str) -> None:
    there = samples()
    for name, selector in re.findall(r"\b((?:mailbus|process)_\w+)(?:\{([^}]*)\})?", expression):
        assert name in there
        assert set(re.findall(r"(\w+)\s*=~?", selector)) <= there[name]


def test_what_an_alert_counts_is_there_before_the_first_time() -> None:
    text = generate_latest().decode()
    for rule in ALERTS:
        for name, selector in re.findall(r"increase\((\w+)(\{[^}]*\})?\[", rule["expr"]):
            assert re.search(rf"^{name}{re.escape(selector)}.* ", text, re.MULTILINE), rule["alert"]


def test_prometheus_reads_the_rules() -> None:
    checked = promtool("check", "rules", RULES)
    assert checked.returncode == 0, checked.stderr


def test_each_alert_fires_when_it_shall_and_not_before() -> None:
    tested = promtool("test", "rules", FIRING)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    fired = {
        case["alertname"]
        for test in yaml.safe_load(FIRING.read_text(encoding="utf-8"))["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_each_alert_has_a_runbook_that_is_there(rule: dict[str, dict[str, str]]) -> None:
    file, anchor = rule["annotations"]["runbook"].split("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_documents_table_of_alerts_has_them_all_as_they_are() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `(Mailbus\w+)` \| (yes|no) \| \[[^\]]+\]\(#([^)]+)\) \|$", text, re.MULTILINE)
    assert found == [
        (
            rule["alert"],
            "yes" if rule["labels"]["severity"] == "page" else "no",
            rule["annotations"]["runbook"].partition("#")[2],
        )
        for rule in ALERTS
    ]


def test_the_chart_brings_both_where_asked() -> None:
    found = objects({"prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}})
    (rules,) = [one["spec"] for one in found if one["kind"] == "PrometheusRule"]
    assert rules == yaml.safe_load(RULES.read_text(encoding="utf-8"))
    (brought,) = [one["data"]["mailbus.json"] for one in found if one["metadata"]["name"] == "mailbus-dashboard"]
    assert json.loads(brought) == DASHBOARD
