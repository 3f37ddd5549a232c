"""docs/settings.md and docs/schema/settings.json are what the types say, and the schema says what loading does."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from service.settings import settings_reference, settings_schema
from tests.settings.conftest import Load
from tests.settings.test_load import WHOLE
from tools.schema import text_of

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = settings_schema()


def test_the_page_is_what_the_types_say() -> None:
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == settings_reference(), "run: make schema"


def test_the_schema_is_what_the_types_say() -> None:
    assert (DOCS / "schema" / "settings.json").read_text(encoding="utf-8") == text_of(SCHEMA), "run: make schema"


def test_the_schema_is_one_of_2020_12() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert jsonschema_rs.meta.is_valid(SCHEMA)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        yaml.safe_load(WHOLE.replace("2026-01-01", '"2026-01-01"')),
        {"accounts": [{"id": "a", "address": "a@example.com", "preset": "gmail", "password": {"env": "X"}}]},
        {"accounts": [{"id": "a", "address": "a@b.c", "preset": "gmail", "incoming": {"initial": "all"}}]},
    ],
)
def test_what_is_loaded_is_valid(settings: Any) -> None:
    jsonschema_rs.Draft202012Validator(SCHEMA).validate(settings)


@pytest.mark.parametrize(
    "settings",
    [{"nats": {"sever": 1}}, {"limits": {"inline": 4}}, {"streams": {"in": {"max_age": "soon"}}}, {"accounts": [{}]}],
)
def test_what_is_refused_is_not_valid(settings: Any) -> None:
    assert not jsonschema_rs.Draft202012Validator(SCHEMA).is_valid(settings)


def test_every_key_has_a_meaning() -> None:
    rows = [line for line in settings_reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert all(cell.strip() for line in rows for cell in (line.split(" | ")[0], line.split(" | ")[-1].rstrip("|")))
    assert "accounts[].incoming.imap.idle" in settings_reference()
    json.dumps(SCHEMA)


@pytest.mark.parametrize(
    ("file", "begin", "end"),
    [("docs/settings.md", "```yaml\n", "```"), ("deploy/kubernetes/mailbus.yaml", "  mailbus.yaml: |\n", "\n---")],
)
def test_examples_are_settings(file: str, begin: str, end: str, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPPORT_PASSWORD", "p")
    text = (DOCS.parent / file).read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    (account,) = load(text).accounts
    assert account.incoming is not None
    assert account.outgoing is not None
