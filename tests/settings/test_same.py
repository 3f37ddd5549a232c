"""What has changed between two readings of the settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from service.settings import AccountSettings, Settings, changed_sections, files_named, files_of, kept, load_settings
from service.settings.part import Part

ACCOUNT = """
  - id: {id}
    address: {id}@example.com
    password: {password}
    incoming: {{imap: {{host: imap.example.com}}}}
"""
TOKEN = """
accounts:
  - id: a
    address: a@example.com
    oauth2:
      grant: refresh_token
      token_url: https://login.example.com/token
      client_id: id
      client_secret: {file: client}
      refresh_token: {file: token}
    incoming: {imap: {host: imap.example.com}}
"""


def read(folder: Path, text: str) -> Settings:
    file = folder / "mailbus.yaml"
    file.write_text(text)
    return load_settings(file)


def test_an_account_that_has_not_changed_is_the_very_same(tmp_path: Path) -> None:
    old = read(tmp_path, "accounts:" + ACCOUNT.format(id="a", password="x") + ACCOUNT.format(id="b", password="x"))
    new = read(tmp_path, "accounts:" + ACCOUNT.format(id="a", password="x") + ACCOUNT.format(id="b", password="y"))
    before = {account.id: account for account in old.accounts}
    now = kept(before, {account.id: account for account in new.accounts})
    assert now["a"] is before["a"]
    assert now["b"] is not before["b"]
    assert now["b"].password.reveal() == "y"


@pytest.mark.parametrize(("file", "same"), [("token", True), ("client", False)])
def test_a_refresh_token_that_was_renewed_in_its_file_is_no_change_and_another_secret_is(
    tmp_path: Path, file: str, same: bool
) -> None:
    for name in ("token", "client"):
        (tmp_path / name).write_text("one")
    old = read(tmp_path, TOKEN)
    assert files_of(old.accounts[0]) == {tmp_path / "client"}
    (tmp_path / file).write_text("two")
    new = read(tmp_path, TOKEN)
    before = {account.id: account for account in old.accounts}
    now = kept(before, {account.id: account for account in new.accounts})
    assert (now["a"] is before["a"]) is same


def test_other_sections_that_differ_are_named(tmp_path: Path) -> None:
    old = read(tmp_path, "")
    new = read(
        tmp_path, "limits: {inline: 1KiB}\nfleet: {capacity: 2}\naccounts:" + ACCOUNT.format(id="a", password="x")
    )
    assert changed_sections(old, new) == ["fleet", "limits"]
    assert changed_sections(old, old) == []


def test_a_password_of_nats_that_changes_in_its_file_needs_no_restart_and_another_file_does(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("secret")
    old = read(tmp_path, "nats: {user: mailbus, password: {file: one}}")
    (tmp_path / "one").write_text("renewed")
    assert changed_sections(old, read(tmp_path, "nats: {user: mailbus, password: {file: one}}")) == []
    assert changed_sections(old, read(tmp_path, "nats: {user: mailbus, password: {file: two}}")) == ["nats"]
    assert changed_sections(old, read(tmp_path, "nats: {user: mailbus, password: secret}")) == ["nats"]


FILES = """
accounts:
  - id: a
    address: a@example.com
    password: {file: password}
    incoming: {imap: {host: imap.example.com, ca: ca.pem}}
    outgoing:
      smtp: {host: smtp.example.com, ca: ca.pem}
      relays: [{host: second.example.com, username: a, password: {file: second}, ca: other.pem}]
"""


@pytest.mark.fault("F10")
def test_another_content_of_a_file_that_an_account_names_is_a_change(tmp_path: Path) -> None:
    for name in ("password", "ca.pem", "second", "other.pem"):
        (tmp_path / name).write_text("one")
    (old,) = read(tmp_path, FILES).accounts
    assert files_of(old) == {tmp_path / name for name in ("password", "ca.pem", "second", "other.pem")}
    (same,) = read(tmp_path, FILES).accounts
    assert kept({"a": old}, {"a": same})["a"] is old
    for name in ("password", "ca.pem", "second", "other.pem"):
        (tmp_path / name).write_text("another")
        (new,) = read(tmp_path, FILES).accounts
        assert kept({"a": old}, {"a": new})["a"] is new
        old = new


def within(annotation: Any) -> Iterator[Any]:
    """A type, and all that it is made of."""
    yield annotation
    for one in get_args(annotation):
        yield from within(one)


def parts(model: Any) -> Iterator[tuple[str, Any]]:
    """All fields of a section and of those below it."""
    for name, field in model.model_fields.items():
        yield name, field
        for one in within(field.annotation):
            if isinstance(one, type) and issubclass(one, Part):
                yield from parts(one)


def test_whatever_in_an_account_names_a_file_is_known_by_its_key() -> None:
    named = {name for name, field in parts(AccountSettings) if "NamedFile" in repr(field)}
    assert "ca" in named
    for name in (*named, "file"):
        assert list(files_named({"id": "a", "outgoing": {"relays": [{name: "path"}]}})) == ["path"]
    assert not list(files_named({"id": "a", "password": {"sealed": "x"}, "exclude": ["key"]}))
