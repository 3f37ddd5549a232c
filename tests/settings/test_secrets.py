"""A secret is shown by nothing: not by settings, not by errors, whatever is wrong and wherever it stands."""

import copy
import json
import pickle
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel

from service.settings import Secret, Settings, SettingsInvalid, load_settings
from service.settings.problems import models_of
from tests.settings.conftest import Load, Problems

MARKER = "hunter2-Zq8"
BESIDE = "the file that it names beside the settings file"

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


SEED = "SUAEL6GG2L2HIF7DUGZJGMRUFKXELGGYFMHF76UO2AYBG3K4YLWR3FKC2Q"
FERNET = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHAxJv8uvQ0Wb2N5\n-----END PRIVATE KEY-----\n"
# Where a secret belongs, or the name of who has it, or a file that holds it: no value is shown, however short.
BESIDE_SECRETS = {
    "password", "token", "nkey_seed", "creds", "user", "username", "address", "redirect", "verp", "servers", "keys",
    "ca", "cert", "key", "client_id", "client_secret", "refresh_token", "token_url", "scope",
}  # fmt: skip


def leaves(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """The keys of settings that hold values, each by its way; `[]` is an entry of a list, `x` one of a mapping."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        inner = list(models_of(field.annotation))
        shown = str(field.annotation)
        step = ("[]",) if "tuple[" in shown else ("x",) if "dict[" in shown else ()
        yield from ((key, *step, *below) for one in inner for below in leaves(one))
        if not inner:
            yield (key, *step)
        yield (key,)


def written(way: tuple[str, ...], value: object) -> object:
    """Settings with this value there, and the account whole otherwise."""
    for number, step in reversed(list(enumerate(way))):
        value = [value] if step == "[]" else {step: value}
        if way[:number] == ("accounts", "[]") and isinstance(value, dict):
            value = {"id": "a", "address": "a@b.example", "password": "p", "preset": "gmx"} | value
    return value


LEAVES = sorted(set(leaves(Settings)))


@pytest.mark.fault("G04")
@given(
    way=st.sampled_from(LEAVES),
    secret=st.sampled_from([SEED, FERNET, PEM, f"{MARKER}\n", f"me:{MARKER}@host", f"eyJ{MARKER}." * 20])
    | st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", min_size=41, max_size=80),
    form=st.sampled_from(["{}", "{}\n", "[{}]", "{}={}"]),
    within=st.sampled_from([lambda text: text, lambda text: [text], lambda text: {"env": text},
                            lambda text: {"file": text}, lambda text: {text: None}]),
)  # fmt: skip
def test_a_secret_under_any_key_is_not_shown(
    way: tuple[str, ...], secret: str, form: str, within: Callable[[str], object]
) -> None:
    value = within(form.format(secret, secret))
    # A word is shown as a key that nobody knows.
    assume(not isinstance(value, dict) or value.keys() & {"env", "file"} or len(secret) > 40)
    found = problems_of(written(way, value))
    assert not any(line in found for line in [secret, MARKER, *secret.splitlines()] if len(line) > 8)


@pytest.mark.fault("G04")
@pytest.mark.parametrize("way", [way for way in LEAVES if BESIDE_SECRETS & set(way)], ids=".".join)
def test_a_short_secret_is_not_shown_where_one_belongs(way: tuple[str, ...]) -> None:
    for text in (MARKER, f"{MARKER}\n", f"{MARKER} x", f"a@{MARKER}"):
        for value in (text, [text], {"file": text}, {"env": text}):
            assert MARKER not in problems_of(written(way, value))


def problems_of(raw: object) -> str:
    """What is said of settings, all of it; empty where they are taken."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "mailbus.yaml")
        file.write_text(yaml.safe_dump(raw))
        try:
            load_settings(file)
        except SettingsInvalid as failed:
            return "\n".join([str(failed), *failed.problems])
    return ""


@pytest.mark.fault("G04")
def test_broken_json_in_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILBUS_ACCOUNTS", f'[{{"id": "a", "password": "{MARKER}"')
    monkeypatch.setenv("MAILBUS_NATS", f'{{"password": "{MARKER}"')
    with pytest.raises(SettingsInvalid) as failed:
        load_settings(None)
    assert failed.value.problems == [
        "nats (MAILBUS_NATS): write keys and values below it",
        "accounts (MAILBUS_ACCOUNTS): write a list (in the environment: as JSON)",
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
        ("{env: not_there}", "the environment variable that it names is not set"),
        ("{file: /not/there.txt}", "the file /not/there.txt cannot be read: No such file or directory"),
        ("{file: nowhere}", f"{BESIDE} cannot be read: No such file or directory"),
        ("{file: .}", f"{BESIDE} cannot be read: Is a directory"),
        ("{file: empty}", f"{BESIDE} is empty: write {{env: NAME}}, {{file: PATH}}, or the text itself"),
        ("{file: lines}", f"{BESIDE} holds a line end or a NUL, which no server takes"),
        ("{file: binary}", f"{BESIDE} is not UTF-8"),
        ("{file: large}", f"{BESIDE} is larger than a secret can be (64KiB)"),
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
