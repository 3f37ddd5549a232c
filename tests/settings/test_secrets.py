"""A secret is shown by nothing: not by settings, not by errors, whatever is wrong and wherever it stands."""

import copy
import json
import pickle
import traceback
from pathlib import Path

import pytest

from service.settings import Secret, Settings, SettingsInvalid, load_settings
from tests.settings.conftest import Load, Problems

MARKER = "hunter2-Zq8"

WITH_SECRETS = f"""
nats: {{user: u, password: {MARKER}}}
accounts:
  - {{id: a, address: a@example.com, preset: gmail, password: {MARKER}}}
  - id: b
    address: b@example.com
    incoming: {{password: {MARKER}, imap: {{host: h}}}}
    outgoing: {{password: {MARKER}, smtp: {{host: h}}}}
"""


@pytest.mark.fault("G04")
def test_settings_show_no_secret(load: Load) -> None:
    settings = load(WITH_SECRETS)
    assert settings.accounts[1].outgoing is not None
    assert settings.accounts[1].outgoing.password.reveal() == MARKER
    shown = [repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump(mode="json"))]
    shown += [str(settings.model_dump()), f"{settings.nats.password}", repr(settings.nats.password)]
    shown += [
        str(settings.model_copy(deep=True)),
        str(copy.deepcopy(settings)),
        json.dumps(Settings.model_json_schema()),
    ]
    assert all(MARKER not in text for text in shown)


def test_a_secret_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(MARKER))


@pytest.mark.fault("G04")
@pytest.mark.parametrize(
    "text",
    [
        f"nats: {{pasword: {MARKER}}}",
        f"nats: {{password: [{MARKER}]}}",
        f"nats: {{password: {{literal: {MARKER}}}}}",
        f'nats: {{password: "{MARKER}\\n"}}',
        f"nats: {{servers: ['nats://user:{MARKER}@host:4222']}}",
        f"nats: {{servers: 'nats://user:{MARKER}/@host'}}",
        f"nats: {MARKER}",
        f"nats: [{MARKER}]",
        f"accounts: {MARKER}",
        f"accounts: {{password: {MARKER}}}",
        f"accounts: [{{id: a, password:{MARKER}}}]",
        f"accounts: [{{id: a, password={MARKER}}}]",
        f"accounts: [{{id: a, password:{MARKER}, password:{MARKER}}}]",
        f"accounts: [{{id: a, address: a@b.example, password: {MARKER}, incoming: {MARKER}}}]",
        f"accounts: [{{id: a, address: a@b.example, oauth2: {{client_secret: {MARKER}}}}}]",
        f"accounts: [{{id: a, incoming: {{imap: {{host: 'imaps://u:{MARKER}@h'}}}}}}]",
        f"accounts:\n  - id: a\n    password: !{MARKER}\n",
        f"accounts:\n  - id: a\n    password: *{MARKER}\n",
        f"accounts:\n  - id: a\n    password: &{MARKER}\n",
        f"accounts:\n  - id: a\n    password: @{MARKER}\n",
        f"accounts:\n  - id: a\n    password: '{MARKER}\n",
        f'accounts:\n  - id: a\n    password: "\\q{MARKER}"\n',
        f"accounts:\n  - id: a\n    password: a: {MARKER}\n",
        f"accounts:\n  - id: a\n    password: {MARKER}\n   x: 1\n",
    ],
)
def test_no_error_shows_a_secret(load: Load, text: str) -> None:
    with pytest.raises(SettingsInvalid) as failed:
        load(text)
    shown = "".join(traceback.format_exception(failed.value)) + repr(failed.value) + str(failed.value.problems)
    assert MARKER not in shown
    assert failed.value.__cause__ is None


@pytest.mark.fault("G04")
def test_broken_json_in_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILBUS_ACCOUNTS", f'[{{"id": "a", "password": "{MARKER}"')
    monkeypatch.setenv("MAILBUS_NATS", f'{{"password": "{MARKER}"')
    with pytest.raises(SettingsInvalid) as failed:
        load_settings(None)
    assert failed.value.problems == [
        "nats: write keys and values below it",
        "accounts: write a list (in the environment: as JSON)",
    ]


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ("{env: NOT_THERE}", "the environment variable NOT_THERE is not set"),
        (
            "{env: EMPTY}",
            "the environment variable EMPTY is empty: write {env: NAME}, {file: PATH}, or the text itself",
        ),
        ("{env: LINES}", "the environment variable LINES holds a line end or a NUL, which no server takes"),
        ("{file: nowhere}", "the file nowhere cannot be read: No such file or directory"),
        ("{file: .}", "the file . cannot be read: Is a directory"),
        ("{file: empty}", "the file empty is empty: write {env: NAME}, {file: PATH}, or the text itself"),
        ("{file: lines}", "the file lines holds a line end or a NUL, which no server takes"),
        ("{file: binary}", "the file binary is not UTF-8"),
        ("{file: large}", "the file large is larger than a secret can be (64KiB)"),
        ("1234", "write {env: NAME}, {file: PATH}, or the text itself (in quotes where it looks like a number)"),
        ("''", "it is empty: write {env: NAME}, {file: PATH}, or the text itself"),
    ],
)
def test_a_secret_that_cannot_be_had_names_its_key(
    problems: Problems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str, problem: str
) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("LINES", "a\nb")
    for name, content in {"empty": b"\n", "lines": b"a\nb\n", "binary": b"\xff", "large": b"x" * 70_000}.items():
        (tmp_path / name).write_bytes(content)
    found = problems(f"accounts: [{{id: a, address: a@b.example, preset: gmx, password: {secret}}}]")
    assert found == [f"accounts[0].password: {problem}"]
