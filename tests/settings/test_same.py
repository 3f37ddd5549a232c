"""What has changed between two readings of the settings."""

from pathlib import Path

import pytest

from service.settings import Settings, changed_sections, kept, load_settings, secret_files

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
    assert secret_files(old) == {tmp_path / "client"}
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
