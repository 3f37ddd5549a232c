"""The chart: linted, rendered, and every object held against Kubernetes' own schemas."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import HelmValuesError
from helm_python.chart import lint

from service import __version__
from service.settings import load_settings
from tools.manifests import CHART, MANIFESTS, VALUES, manifests, objects

# Two years of Kubernetes.
VERSIONS = ("1.30", "1.33", "1.37")
# Of the Prometheus operator: no schema of Kubernetes.
CUSTOM = {"ServiceMonitor", "PrometheusRule"}
EVERYTHING = {
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
    "secretEnv": ["mailbus"],
    "secretFiles": ["gmail.key"],
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"disk": "any"},
    "tolerations": [{"key": "mail", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "podAnnotations": {"team": "mail"},
    "networkPolicy": {"enabled": True, "from": {"app": "prometheus"}},
}


def of_kind(kind: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    (found,) = [one for one in objects(values) if one["kind"] == kind]
    return found


def pod(values: dict[str, Any] | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = of_kind("StatefulSet", values)["spec"]["template"]["spec"]
    return spec


def test_the_linter_of_charts_finds_nothing() -> None:
    found = lint(CHART, strict=True)
    assert [one for one in found["messages"] if one["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_every_object_is_what_kubernetes_takes(values: dict[str, Any], version: str) -> None:
    # Seconds, in each process that only collects.
    import kubernetes_validate

    checked = [one for one in objects(values) if one["kind"] not in CUSTOM]
    assert len(checked) > 5
    for one in checked:
        kubernetes_validate.validate(one, version, strict=True)


def test_the_plain_manifests_are_those_of_the_chart() -> None:
    assert MANIFESTS.read_text(encoding="utf-8") == manifests(), "make schema"


def test_the_manifests_settings_are_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SUPPORT_PASSWORD", "x")
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    file = tmp_path / "mailbus.yaml"
    file.write_text(of_kind("ConfigMap", values)["data"]["mailbus.yaml"], encoding="utf-8")
    assert [account.id for account in load_settings(file).accounts] == ["support"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicas": 0}, "replicas"),
        ({"replica": 2}, "replica"),
        ({"networkPolicy": {"enabled": True, "mailPorts": [99999]}}, "mailPorts"),
        ({"secretEnv": ["Not A Name"]}, "secretEnv"),
    ],
)
def test_a_wrong_value_is_refused_and_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(HelmValuesError, match=named):
        objects(values)


def test_a_pod_runs_as_nobody_on_a_root_that_it_cannot_write() -> None:
    (container,) = pod()["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["automountServiceAccountToken"] is False


def test_a_pod_is_called_what_it_is_called_in_the_fleet() -> None:
    (container,) = pod()["containers"]
    (instance,) = [one for one in container["env"] if one["name"] == "MAILBUS_INSTANCE"]
    assert instance["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_secrets_come_as_variables_or_files_and_stand_in_no_object() -> None:
    (container,) = pod(EVERYTHING)["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "mailbus"}}]
    assert {"name": "secret-gmail-key", "mountPath": "/etc/mailbus-secrets/gmail.key", "readOnly": True} in container[
        "volumeMounts"
    ]
    assert not [one for one in objects(EVERYTHING) if one["kind"] == "Secret"]


def test_the_port_is_the_one_that_the_settings_say() -> None:
    (container,) = pod({"settings": {"http": {"listen": "0.0.0.0:9000"}}})["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": 9000}]


def test_what_leaves_a_pod_goes_to_names_nats_mail_and_tokens_alone() -> None:
    policy = of_kind("NetworkPolicy")["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {53, 4222, 25, 110, 143, 443, 465, 587, 993, 995}
    assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_an_autoscaler_alone_says_how_many_there_are() -> None:
    assert "replicas" not in of_kind("StatefulSet", EVERYTHING)["spec"]
    assert of_kind("StatefulSet")["spec"]["replicas"] == 2
    assert not [one for one in objects() if one["kind"] == "HorizontalPodAutoscaler"]


def test_there_is_time_for_a_drain() -> None:
    assert pod()["terminationGracePeriodSeconds"] > 12


def test_the_chart_has_the_programs_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_the_values_for_nats_own_chart_give_what_the_settings_look_for() -> None:
    nats = yaml.safe_load((CHART.parents[1] / "nats" / "values.yaml").read_text(encoding="utf-8"))["config"]
    settings = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["settings"]["nats"]
    assert nats["cluster"]["replicas"] >= settings["replicas"]
    assert nats["cluster"]["enabled"]
    assert nats["jetstream"]["enabled"]
    # Where the release is called nats, as its comment says.
    assert settings["servers"] == ["nats://nats:4222"]
