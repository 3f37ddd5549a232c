"""The settings file is read and compared beside the event loop, in the service's own threads."""

import asyncio
import os
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.aside import _of_loop
from service.catalog import Catalog
from service.clock import SystemClock
from service.reload import FOLDERS_LIMIT, FOLDERS_SHOWN, Reload, Seen, as_read, signature_of
from service.settings import AccountSettings, Settings, Signature, load_settings
from tests.catalog.test_catalog import change, hear
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


@pytest.mark.fault("F07", "F10")
@pytest.mark.parametrize("folders", [1, 3 * FOLDERS_LIMIT])
async def test_a_folder_that_says_nothing_hides_no_change_in_another_and_its_own_are_seen_later(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: int
) -> None:
    monkeypatch.setattr("service.reload.LOOK_EVERY_S", 0.05)
    silent, others = tmp_path / "silent", [tmp_path / str(number) for number in range(folders)]
    for folder in (silent, *others):
        folder.mkdir()
        (folder / "password").write_text("one")
    file = write(tmp_path, account("a"))
    settings = load_settings(file)
    catalog.take_file({one.id: one for one in settings.accounts})
    hung = change("hung", 1, password={"file": "silent/password"})
    await hear(catalog, hung, *(change(f"b{n}", n + 2, password={"file": f"{n}/password"}) for n in range(folders)))
    back = threading.Event()

    def signature(path: Path) -> Signature | None:
        if path.parent == silent:
            back.wait(60)
        return signature_of(path)

    reload = Reload(file, settings, as_read(file, settings, signature_of(file)), catalog, SystemClock())
    monkeypatch.setattr("service.reload.signature_of", signature)
    monkeypatch.setattr("service.aside.LIMIT_S", 0.2)
    with capture_logs() as said:
        running = asyncio.create_task(reload.run())
        await until(lambda: running.done() or bool(said))
    try:
        (line,) = [line for line in said if line["event"] == "files_not_seen"]
        assert str(silent) in line["folders"] or len(line["folders"]) == FOLDERS_SHOWN
        assert len(_of_loop[asyncio.get_running_loop()].late) == 1
        (silent / "password").write_text("two")
        write(tmp_path, account("a", address="b@example.com"))
        await until(lambda: running.done() or catalog.all["a"].address == "b@example.com")
        assert catalog.all["hung"].password.reveal() == "one"
        back.set()
        await until(lambda: running.done() or catalog.all["hung"].password.reveal() == "two")
    finally:
        back.set()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.mark.fault("F10")
async def test_settings_that_name_a_silent_file_no_more_are_taken_though_it_is_silent_still(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.reload.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("service.reload.READ_LIMIT_S", 0.2)
    file = write(tmp_path, account("a"))
    settings = load_settings(file)
    catalog.take_file({one.id: one for one in settings.accounts})
    running = asyncio.create_task(
        Reload(file, settings, as_read(file, settings, signature_of(file)), catalog, SystemClock()).run()
    )
    try:
        os.mkfifo(tmp_path / "pipe")
        write(tmp_path, account("a"), account("b", password="{file: pipe}"))
        await until(lambda: running.done() or catalog.file_refused)
        write(tmp_path, account("a"), account("c"))
        await until(lambda: running.done() or catalog.all.keys() == {"a", "c"})
        assert not catalog.file_refused
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        (tmp_path / "pipe").write_text("x")  # its reader ends


@pytest.mark.fault("F10")
async def test_a_secret_that_says_nothing_hides_no_change_of_the_settings_that_name_it(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.reload.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("service.reload.READ_LIMIT_S", 0.2)
    pipe = tmp_path / "password"
    pipe.write_text("one")
    file = write(tmp_path, account("a", password="{file: password}"))
    settings = load_settings(file)
    catalog.take_file({one.id: one for one in settings.accounts})
    running = asyncio.create_task(
        Reload(file, settings, as_read(file, settings, signature_of(file)), catalog, SystemClock()).run()
    )
    try:
        pipe.unlink()
        os.mkfifo(pipe)
        await until(lambda: running.done() or catalog.file_refused)
        write(tmp_path, account("a", address="b@example.com"))
        await until(lambda: running.done() or catalog.all["a"].address == "b@example.com")
        assert not catalog.file_refused
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        pipe.write_text("x")  # its reader ends


@pytest.mark.fault("F10")
async def test_where_a_read_did_not_come_back_a_change_is_seen_all_the_same(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.reload.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("service.reload.READ_LIMIT_S", 0.2)
    os.mkfifo(tmp_path / "pipe")
    file = write(tmp_path, account("a", password="{file: pipe}"))
    reload = Reload(file, Settings(), as_read(file, Settings()), catalog, SystemClock())
    await reload.read()
    assert catalog.file_refused
    running = asyncio.create_task(reload.run())
    try:
        write(tmp_path, account("a"))
        await until(lambda: running.done() or catalog.all.keys() == {"a"})
        assert not catalog.file_refused
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        (tmp_path / "pipe").write_text("x")  # its reader ends


async def test_a_file_that_holds_what_was_written_out_before_is_looked_at_from_then_on(
    catalog: Catalog, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("x")
    file = write(tmp_path, account("a"))
    settings = load_settings(file)
    catalog.take_file({one.id: one for one in settings.accounts})
    reload = Reload(file, settings, as_read(file, settings, signature_of(file)), catalog, SystemClock())
    before = catalog.all["a"]
    write(tmp_path, account("a", password="{file: password}"))
    await reload.read()
    assert catalog.all["a"] is before
    assert reload._named == {file, tmp_path / "password"}


async def test_settings_that_change_while_they_are_read_at_the_start_are_read_again(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.reload.LOOK_EVERY_S", 0.05)
    file = write(tmp_path, account("a"))
    was, settings = signature_of(file), load_settings(file)
    write(tmp_path, account("a", address="changed@example.com"))
    seen = as_read(file, settings, was)
    catalog.take_file({one.id: one for one in settings.accounts})
    running = asyncio.create_task(Reload(file, settings, seen, catalog, SystemClock()).run())
    try:
        await until(lambda: running.done() or catalog.all["a"].address == "changed@example.com")
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.mark.fault("F10")
@pytest.mark.parametrize(
    "named",
    [
        "password: {file: secret}, incoming: {imap: {host: x.example}}",
        "password: x, incoming: {imap: {host: x.example, ca: secret}}",
    ],
)
async def test_a_file_that_changes_once_the_settings_that_name_it_were_read_is_read_again(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setattr("service.reload.LOOK_EVERY_S", 0.05)
    (tmp_path / "secret").write_text("one")
    file = write(tmp_path, f"\n  - {{id: a, address: a@example.com, username: a, {named}}}")
    was, settings = signature_of(file), load_settings(file)
    (tmp_path / "secret").write_text("another")
    catalog.take_file({one.id: one for one in settings.accounts})
    before = catalog.all["a"]
    running = asyncio.create_task(Reload(file, settings, as_read(file, settings, was), catalog, SystemClock()).run())
    try:
        await until(lambda: running.done() or catalog.all["a"] is not before)
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_files_that_stay_as_they_were_read_are_not_read_again(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.reload.LOOK_EVERY_S", 0.02)
    (tmp_path / "secret").write_text("one")
    file = write(tmp_path, account("a", password="{file: secret}"), account("b", password="{file: secret}"))
    was, settings = signature_of(file), load_settings(file)
    catalog.take_file({one.id: one for one in settings.accounts})
    reload = Reload(file, settings, as_read(file, settings, was), catalog, SystemClock())
    looked, looking = 0, reload._look

    async def look(files: Collection[Path]) -> Seen:
        nonlocal looked
        looked += 1
        return await looking(files)

    async def read() -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(reload, "_look", look)
    monkeypatch.setattr(reload, "read", read)
    running = asyncio.create_task(reload.run())
    try:
        await until(lambda: running.done() or looked == 3)
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
