"""The settings file is read and compared beside the event loop, in the service's own threads."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from service.aside import _of_loop
from service.catalog import Catalog
from service.clock import SystemClock
from service.reload import Reload
from service.settings import AccountSettings, Settings, load_settings
from tests.servers.mailbus import until

ACCOUNT = """
  - id: {id}
    address: {address}
    password: {password}
    incoming: {{imap: {{host: imap.example.com}}}}
"""


def write(folder: Path, *accounts: str) -> Path:
    file = folder / "mailbus.yaml"
    file.write_text("accounts:" + "".join(accounts))
    return file


def account(id: str, *, address: str = "a@example.com", password: str = "x") -> str:
    return ACCOUNT.format(id=id, address=address, password=password)


async def test_accounts_are_compared_beside_the_loop_and_those_that_are_as_before_stay(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, account("a"), account("b"))
    settings = load_settings(file)
    catalog.take_file({one.id: one for one in settings.accounts})
    before, compared = dict(catalog.all), set[threading.Thread]()
    equal = AccountSettings.__eq__

    def counted(one: AccountSettings, other: Any) -> bool:
        compared.add(threading.current_thread())
        return equal(one, other)

    monkeypatch.setattr(AccountSettings, "__eq__", counted)
    write(tmp_path, account("a"), account("b", address="b@example.com"))
    await Reload(file, settings, {}, catalog, SystemClock()).read()
    assert catalog.all["a"] is before["a"]
    assert catalog.all["b"].address == "b@example.com"
    assert compared
    assert threading.main_thread() not in compared


@pytest.mark.fault("F10")
async def test_a_file_that_says_nothing_is_given_up_said_and_read_again(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.reload.READ_LIMIT_S", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    file = write(tmp_path, account("a", password="{file: pipe}"))
    reload = Reload(file, Settings(), {}, catalog, SystemClock())
    async with asyncio.timeout(20):
        await reload.read()
    assert catalog.file_refused
    pipe.write_text("secret")  # there is a reader: that returns at once
    pipe.unlink()
    pipe.write_text("secret")
    await until(lambda: not _of_loop[asyncio.get_running_loop()].late)
    await reload.read()
    assert not catalog.file_refused
    assert catalog.all["a"].password.reveal() == "secret"
