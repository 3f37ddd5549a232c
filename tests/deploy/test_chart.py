"""The chart: linted, rendered, and every object held against Kubernetes' own schemas."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import HelmError, HelmValuesError
from helm_python.chart import lint
from pydantic import BaseModel

from service import __version__
from service.oauth.store import write_secret
from service.settings import Settings, load_settings
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
    "networkPolicy": {
        "enabled": True,
        "from": {"app": "prometheus"},
        "fromNamespaces": ["metrics", "monitoring"],
        "natsTo": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "nats"}}}],
        "mailTo": [{"ipBlock": {"cidr": "198.51.100.0/24", "except": ["198.51.100.9/32"]}}],
        "dnsTo": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
    },
    "tokens": {"enabled": True, "secret": "tokens", "storageClassName": "nfs"},
}
ROOT = CHART.parents[2]
STATE = "/var/lib/mailbus"


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
        ({"networkPolicy": {"enabled": True, "fromNamespaces": "monitoring"}}, "fromNamespaces"),
        ({"networkPolicy": {"enabled": True, "mailTo": ["198.51.100.0/24"]}}, "mailTo"),
        ({"networkPolicy": {"enabled": True, "mailTo": [{"ipBlock": {"cidr": "198.51.100.7"}}]}}, "cidr"),
        ({"networkPolicy": {"enabled": True, "natsTo": [{}]}}, "natsTo"),
        ({"networkPolicy": {"enabled": True, "natsTo": [{"ipBlock": {"cidr": "::/0"}, "podSelector": {}}]}}, "natsTo"),
        ({"tokens": {"enabled": True, "size": "much"}}, "size"),
        ({"podDisruptionBudget": {"enabled": True, "maxUnavailable": -1}}, "maxUnavailable"),
        ({"podDisruptionBudget": {"enabled": True, "maxUnavailable": "101%"}}, "maxUnavailable"),
        ({"settings": {"limit": {"memory": "64MiB"}}}, "limit"),
        ({"settings": {"nats": {"server": ["nats://nats:4222"]}}}, "server"),
    ],
)
def test_a_wrong_value_is_refused_and_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(HelmValuesError, match=named):
        objects(values)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"settings": {"http": {"listen": "127.0.0.1:8080"}}}, "settings.http.listen.*loopback"),
        ({"settings": {"http": {"listen": "[::1]:8080"}}}, "settings.http.listen.*loopback"),
        ({"settings": {"http": {"listen": "localhost:80"}}}, "settings.http.listen.*loopback"),
        ({"settings": {"http": {"listen": "0.0.0.0:0"}}}, "settings.http.listen"),
        ({"settings": {"http": None}}, "settings.http.listen"),
        ({"settings": {"limits": {"memory": "1GiB"}}}, "resources.limits.memory: 1536Mi is less than twice"),
        ({"resources": {"limits": {"memory": "1000Mi"}}}, "512MiB"),
        ({"resources": {"limits": {"memory": "1G"}}}, "512MiB"),
        ({"resources": {"limits": {"memory": 1000000000}}}, "512MiB"),
        (
            {"autoscaling": {"enabled": True, "minReplicas": 9}},
            "minReplicas: 9 is more than maxReplicas, 5",
        ),
    ],
)
def test_values_that_make_no_pods_that_run_are_refused_and_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(HelmError, match=named):
        objects(values)


@pytest.mark.parametrize(
    "values",
    [
        {"settings": {"limits": {"memory": "64MiB"}}, "resources": {"limits": {"memory": "256Mi"}}},
        {"settings": {"http": {"listen": "[::]:9000"}}},
        {"resources": {"limits": {"memory": "1Gi"}}},
        {"resources": {"limits": {"memory": 2147483648}}},
        {"resources": {"limits": None}},
        {"resources": None},
        {"autoscaling": {"enabled": False, "minReplicas": 9}},
        {"podDisruptionBudget": {"enabled": True, "maxUnavailable": "25%"}},
        {"podDisruptionBudget": {"enabled": True, "maxUnavailable": 0}},
    ],
)
def test_values_that_make_pods_are_taken(values: dict[str, Any]) -> None:
    assert pod(values)


def keys_of(model: type[BaseModel]) -> dict[str, Any]:
    """The keys of a section and of those below it; what an account has is for mailbus to say."""
    found = {}
    for name, field in model.model_fields.items():
        below = field.annotation if isinstance(field.annotation, type) else None
        inner = keys_of(below) if below is not None and issubclass(below, BaseModel) else None
        found[field.alias or name] = inner
    return found


def test_the_chart_knows_the_keys_of_settings_and_refuses_others() -> None:
    def keys(schema: dict[str, Any]) -> dict[str, Any] | None:
        if "properties" not in schema:
            return None
        assert schema["additionalProperties"] is False
        return {key: keys(below) for key, below in schema["properties"].items()}

    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert keys(schema["properties"]["settings"]) == keys_of(Settings)


def checksum(**settings: Any) -> str:
    template = of_kind("StatefulSet", {"settings": settings})["spec"]["template"]
    return str(template["metadata"]["annotations"]["checksum/settings"])


def test_settings_that_are_read_at_the_start_make_pods_anew_and_accounts_do_not() -> None:
    account = {"id": "a", "address": "a@example.com", "preset": "gmx", "password": {"file": "/etc/mailbus-secrets/a/b"}}
    assert checksum(accounts=[account]) == checksum(accounts=[]) == checksum()
    assert len({checksum(), checksum(limits={"memory": "256MiB"}), checksum(nats={"replicas": 1})}) == 3


def test_an_account_whose_password_is_in_a_variable_that_pods_may_not_have_yet_makes_them_anew() -> None:
    def account(id: str, name: str) -> dict[str, Any]:
        return {"id": id, "address": "a@example.com", "preset": "gmx", "password": {"env": name}}

    one = checksum(accounts=[account("a", "A")])
    assert one != checksum()
    assert one == checksum(accounts=[account("b", "A"), account("c", "A")])
    assert one != checksum(accounts=[account("a", "A"), account("b", "B")])
    both = [account("a", "A"), account("b", "B")]
    assert checksum(accounts=both) == checksum(accounts=both[::-1])


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
    mounted = {"name": "secret-0", "mountPath": "/etc/mailbus-secrets/gmail.key", "readOnly": True}
    assert mounted in container["volumeMounts"]
    assert not [one for one in objects(EVERYTHING) if one["kind"] == "Secret"]


def test_any_names_of_secrets_give_volumes_that_kubernetes_takes() -> None:
    names = ["a.b", "a-b", "x" * 100]
    volumes = {
        one["name"]: one["secret"]["secretName"] for one in pod({"secretFiles": names})["volumes"] if "secret" in one
    }
    assert list(volumes.values()) == names
    assert max(map(len, volumes)) <= 63


def test_an_image_may_be_named_by_its_digest() -> None:
    digest = f"sha256:{'0a' * 32}"
    (container,) = pod({"image": {"repository": "r.example/mailbus", "digest": digest}})["containers"]
    assert container["image"] == f"r.example/mailbus:{__version__}@{digest}"


def test_with_autoscaling_nothing_takes_the_fleet_below_its_least() -> None:
    # Kubernetes makes a StatefulSet without `replicas` one pod, which the autoscaler mends later.
    scaled = {"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 9}}
    assert of_kind("StatefulSet", scaled)["spec"]["replicas"] == 3
    assert of_kind("HorizontalPodAutoscaler", scaled)["spec"]["minReplicas"] == 3
    assert of_kind("StatefulSet")["spec"]["replicas"] == 2
    assert not [one for one in objects() if one["kind"] == "HorizontalPodAutoscaler"]


def test_settings_may_name_no_accounts() -> None:
    assert of_kind("ConfigMap", {"settings": {"accounts": None}})


def test_settings_that_no_configmap_holds_are_refused_with_what_to_do() -> None:
    many = [{"id": f"a{number}", "name": "x" * 300} for number in range(4000)]
    with pytest.raises(HelmError, match="mailbus accounts add"):
        objects({"settings": {"accounts": many}})


def test_the_port_is_the_one_that_the_settings_say() -> None:
    (container,) = pod({"settings": {"http": {"listen": "0.0.0.0:9000"}}})["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": 9000}]


def test_what_leaves_a_pod_goes_to_names_nats_mail_and_tokens_alone() -> None:
    policy = of_kind("NetworkPolicy")["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {53, 4222, 24, 25, 110, 143, 443, 465, 587, 993, 995}
    assert policy["policyTypes"] == ["Ingress", "Egress"]


OFFICE = {"ipBlock": {"cidr": "198.51.100.0/24", "except": ["198.51.100.9/32"]}}
NATS = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "nats"}}}
NAMES = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}


def test_what_leaves_a_pod_goes_to_the_addresses_that_are_named_and_without_any_to_all() -> None:
    named = {"natsTo": [NATS], "mailTo": [OFFICE, NATS], "httpsTo": [{"ipBlock": {"cidr": "2001:db8::/32"}}]}
    policy = of_kind("NetworkPolicy", {"networkPolicy": {"enabled": True, "dnsTo": [NAMES], **named}})["spec"]
    found = {rule["ports"][0]["port"]: rule["to"] for rule in policy["egress"]}
    assert found == {53: [NAMES], 4222: [NATS], 143: [OFFICE, NATS], 443: [{"ipBlock": {"cidr": "2001:db8::/32"}}]}
    assert not [rule for rule in of_kind("NetworkPolicy")["spec"]["egress"] if "to" in rule]


def test_no_port_is_open_where_none_is_wanted() -> None:
    policy = of_kind("NetworkPolicy", {"networkPolicy": {"enabled": True, "httpsPorts": []}})["spec"]
    # A rule without ports would open all of them.
    assert all(rule["ports"] for rule in policy["egress"])
    assert 443 not in {port["port"] for rule in policy["egress"] for port in rule["ports"]}


@pytest.mark.parametrize(
    ("namespaces", "asked"), [(None, ["monitoring"]), (["metrics", "ops"], ["metrics", "ops"]), ([], None)]
)
def test_prometheus_may_ask_from_its_own_namespace(namespaces: list[str] | None, asked: list[str] | None) -> None:
    values = {} if namespaces is None else {"networkPolicy": {"enabled": True, "fromNamespaces": namespaces}}
    (rule,) = of_kind("NetworkPolicy", values)["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": "http"}]
    own, *others = rule["from"]
    assert own == {"podSelector": {}}
    # The label that Kubernetes itself gives each namespace.
    wanted = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": asked}
    assert others == ([] if asked is None else [{"namespaceSelector": {"matchExpressions": [wanted]}}])


def test_a_rolling_update_waits_until_a_replica_has_its_accounts_back() -> None:
    # 2 s until the others know it, and up to 10 s until they have let go.
    assert of_kind("StatefulSet")["spec"]["minReadySeconds"] > 12
    assert of_kind("StatefulSet", {"minReadySeconds": 60})["spec"]["minReadySeconds"] == 60


def test_refresh_tokens_have_a_place_that_all_replicas_write_and_that_outlives_them() -> None:
    assert not [one for one in objects() if one["kind"] == "PersistentVolumeClaim"]
    claim = of_kind("PersistentVolumeClaim", EVERYTHING)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    (container,), (first,) = pod(EVERYTHING)["containers"], pod(EVERYTHING)["initContainers"]
    assert {"name": "tokens", "mountPath": STATE} in container["volumeMounts"]
    assert first["image"] == container["image"]
    assert first["securityContext"] == container["securityContext"]
    there = {"tokens": {"enabled": True, "existingClaim": "ours"}}
    assert not [one for one in objects(there) if one["kind"] == "PersistentVolumeClaim"]
    assert {"name": "tokens", "persistentVolumeClaim": {"claimName": "ours"}} in pod(there)["volumes"]
    assert "initContainers" not in pod(there)


@pytest.mark.parametrize("more", [{"replicas": 2}, {"replicas": 1, "autoscaling": {"enabled": True}}])
def test_a_place_that_one_node_writes_is_refused_for_several(more: dict[str, Any]) -> None:
    alone = {"tokens": {"enabled": True, "accessMode": "ReadWriteOnce"}}
    with pytest.raises(HelmError, match="replicas: 1"):
        objects(alone | more)
    assert of_kind("PersistentVolumeClaim", alone | {"replicas": 1})["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_a_token_that_mailbus_renewed_stays_until_the_secret_changes(tmp_path: Path) -> None:
    (first,) = pod(EVERYTHING)["initContainers"]
    given, kept = tmp_path / "secret", tmp_path / "state"
    given.mkdir()
    kept.mkdir()

    def started() -> str:
        *_, program = [one for one in first["args"] if "\n" in one]
        subprocess.run([sys.executable, "-c", program, given, kept], check=True)
        return (kept / "support.refresh").read_text()

    (given / "support.refresh").write_text("first\n")
    (given / "..data").mkdir()
    assert started() == "first\n"
    assert (kept / "support.refresh").stat().st_mode & 0o777 == 0o600
    write_secret(kept / "support.refresh", "renewed")
    assert started() == "renewed\n"
    (given / "support.refresh").write_text("of a new consent\n")
    assert started() == "of a new consent\n"
    write_secret(kept / "support.refresh", "renewed again")
    (kept / "support.refresh").unlink()
    assert started() == "of a new consent\n"


def test_unit_image_and_compose_have_the_same_place_for_tokens() -> None:
    unit = (ROOT / "deploy" / "mailbus.service").read_text(encoding="utf-8")
    assert f"\nStateDirectory={STATE.rpartition('/')[2]}\nStateDirectoryMode=0700\n" in unit
    assert f"mkdir -m 0700 {STATE} && chown 65532:65532 {STATE}\nUSER 65532" in (ROOT / "Dockerfile").read_text()
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    assert f"tokens:{STATE}" in compose["services"]["mailbus"]["volumes"]


def test_there_is_time_for_a_drain() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))["properties"]
    assert pod()["terminationGracePeriodSeconds"] >= schema["terminationGracePeriodSeconds"]["minimum"] > 20


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
