"""`python -m tools.manifests`: the chart → deploy/kubernetes/mailbus.yaml, for kustomize and kubectl. A test compares.

Its values are deploy/kubernetes/values.yaml; the chart is the only place where manifests are written by hand.
"""

import sys
from pathlib import Path
from typing import Any, Final

import yaml
from helm_python import Chart

ROOT: Final = Path(__file__).parents[1]
CHART: Final = ROOT / "deploy" / "helm" / "mailbus"
VALUES: Final = ROOT / "deploy" / "kubernetes" / "values.yaml"
MANIFESTS: Final = ROOT / "deploy" / "kubernetes" / "mailbus.yaml"
HEAD: Final = "# Rendered from deploy/helm/mailbus with values.yaml by `make schema`: change those.\n"
# The chart's notes are for people.
NOTES: Final = "NOTES.txt"


def rendered(values: dict[str, Any] | None = None) -> dict[str, str]:
    """Each template's text by its file's name, as `helm template mailbus` gives it. Raises HelmError."""
    with Chart.load(CHART) as chart:
        chart.validate_schema(values)
        texts = chart.render(values=values, name="mailbus", namespace="default")
    return {name.rpartition("/")[2]: text for name, text in texts.items() if not name.endswith(NOTES)}


def objects(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The objects of Kubernetes that the chart makes."""
    found = (yaml.safe_load_all(text) for _, text in sorted(rendered(values).items()))
    return [one for documents in found for one in documents if one]


def manifests() -> str:
    """What stands in MANIFESTS."""
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    texts = [text.strip() for _, text in sorted(rendered(values).items()) if yaml.safe_load(text)]
    return HEAD + "---\n" + "\n---\n".join(texts) + "\n"


def main() -> int:
    """The exit code."""
    MANIFESTS.write_text(manifests(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
