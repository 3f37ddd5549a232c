"""What the bucket says, again and again → accounts, each read as often as it must be."""

import asyncio
import os
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from service.aside import AT_ONCE, _of_loop
from service.bus import Entry, KeyChange, ServiceError
from service.catalog import Catalog, admin
from service.errors import Transient
from service.observe import metrics
from service.settings import AccountSettings
from tests.servers.mailbus import until

SILENT = {"password": {"file": "pipe"}}


def change(id: str, seq: int, *, paused: bool = False, **account: Any) -> KeyChange:
    written = {
        "id": id,
        "address": "a@example.com",
        "password": "x",
        "incoming": {"imap": {"host": "imap.example.com"}},
    }
    return KeyChange(id, msgspec.json.encode({"account": written | account, "paused": paused}), seq)


async def hear(catalog: Catalog, *changes: KeyChange) -> None:
    await catalog._hear_all(list(changes))
    catalog._apply()


async def test_after_a_lost_connection_accounts_that_are_as_before_are_neither_read_nor_begun_anew(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hear(catalog, change("a", 1), change("b", 2), change("c", 3))
    before, read = dict(catalog.all), list[str]()
    check = catalog.check

    async def counted(account: dict[str, Any]) -> AccountSettings:
        read.append(str(account["id"]))
        return await check(account)

    monkeypatch.setattr(catalog, "check", counted)
    await hear(catalog, change("a", 1), change("b", 7, address="b@example.com"), change("a", 8, paused=True))
    assert read == ["b"]
    assert catalog.all.keys() == {"a", "b"}
    assert catalog.all["a"] is before["a"]
    assert catalog.all["b"].address == "b@example.com"
    assert catalog.paused == {"a"}


async def test_a_file_that_is_wrong_when_it_is_read_again_leaves_its_account_as_it_was(
    catalog: Catalog, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("one")
    await hear(catalog, change("a", 1, password={"file": "password"}), change("b", 2))
    assert catalog.files() == {file}
    file.write_text("")
    await catalog.read_again({file}, refused=False)
    assert catalog.all["a"].password.reveal() == "one"
    file.write_text("two")
    await catalog.read_again({file, tmp_path / "other"}, refused=False)
    assert catalog.all["a"].password.reveal() == "two"


async def test_an_account_whose_secret_comes_later_stays_as_it_was_until_then(catalog: Catalog, tmp_path: Path) -> None:
    await hear(catalog, change("a", 1), change("b", 2, password={"file": "later"}))
    before = catalog.all["a"]
    assert (catalog.all.keys(), catalog.refused) == ({"a"}, True)
    await hear(catalog, change("a", 3, password={"file": "later"}), change("b", 2, password={"file": "later"}))
    assert catalog.all == {"a": before}
    (tmp_path / "later").write_text("secret")
    await catalog.read_again(set(), refused=False)
    assert catalog.all == {"a": before}
    await catalog.read_again(set(), refused=True)
    assert [catalog.all[id].password.reveal() for id in ("a", "b")] == ["secret", "secret"]
    assert not catalog.refused


async def test_what_nats_has_and_is_not_known_here_is_coming(catalog: Catalog) -> None:
    there: dict[str, KeyChange] = {}

    async def get(id: str) -> Entry | None:
        return None if id not in there else Entry(there[id].value or b"", there[id].seq)

    cast(Any, catalog.bucket).get = get
    assert not await catalog.coming("a")
    there["a"] = change("a", 1)
    assert await catalog.coming("a")
    await hear(catalog, there["a"])
    assert not await catalog.coming("a")
    there["a"] = change("a", 2, paused=True)
    assert not await catalog.coming("a")
    there["a"] = change("a", 3, address="b@example.com")
    assert await catalog.coming("a")
    there["a"] = change("a", 4, password={"file": "later"})
    await hear(catalog, there["a"])
    assert await catalog.coming("a")


async def test_an_account_that_was_just_added_may_be_paused_where_it_is_not_heard_of_yet(catalog: Catalog) -> None:
    written: list[bytes] = []

    async def get(id: str) -> Entry | None:
        return Entry(change("new", 1).value or b"", 1) if id == "new" else None

    async def update(_id: str, value: bytes, _revision: int) -> int:
        written.append(value)
        return 2

    cast(Any, catalog.bucket).get, cast(Any, catalog.bucket).update = get, update
    await admin._Desk(catalog).pause({"id": "new"})
    assert b'"paused":true' in written[0]
    with pytest.raises(ServiceError, match="no such account"):
        await admin._Desk(catalog).pause({"id": "other"})


async def test_a_bug_over_one_account_is_counted_and_the_others_are_taken(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, bugs = catalog.check, metrics.BUGS._value.get()

    async def breaks(account: dict[str, Any]) -> AccountSettings:
        if account["id"] == "a":
            raise ZeroDivisionError
        return await check(account)

    monkeypatch.setattr(catalog, "check", breaks)
    await hear(catalog, change("a", 1), change("b", 2))
    assert (catalog.all.keys(), catalog.refused, metrics.BUGS._value.get()) == ({"b"}, True, bugs + 1)


async def test_a_file_that_says_nothing_is_its_accounts_affair_and_is_asked_again(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.aside.LIMIT_S", 0.1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    await hear(catalog, change("a", 1, password={"file": "pipe"}), change("b", 2))
    assert (catalog.all.keys(), catalog.refused) == ({"b"}, True)
    with pytest.raises(Transient, match="nothing for"):
        await admin._Desk(catalog)._valid(msgspec.json.decode(change("a", 1).value or b"")["account"] | SILENT)
    pipe.write_text("secret")  # there is a reader: that returns at once
    monkeypatch.setattr("service.aside.LIMIT_S", 10.0)
    pipe.unlink()
    pipe.write_text("secret")
    await until(lambda: not _of_loop[asyncio.get_running_loop()].late)
    await catalog.read_again(set(), refused=True)
    assert (catalog.all.keys(), catalog.refused) == ({"a", "b"}, False)


@pytest.mark.fault("F10")
async def test_an_account_that_names_another_file_is_taken_though_the_one_before_says_nothing_still(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.aside.LIMIT_S", 0.2)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "password").write_text("secret")
    await hear(catalog, change("a", 1, password={"file": "pipe"}))
    assert catalog.refused
    monkeypatch.setattr("service.aside.LIMIT_S", 10.0)
    await hear(catalog, change("a", 2, password={"file": "password"}))
    assert (catalog.all.keys(), catalog.refused) == ({"a"}, False)
    (tmp_path / "pipe").write_text("x")  # its reader ends


async def test_an_account_that_is_heard_of_while_its_file_is_read_goes_before_what_was_read(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("x")
    await hear(catalog, change("a", 1, password={"file": "password"}))
    check, begun, go_on = catalog.check, asyncio.Event(), asyncio.Event()

    async def waits(account: dict[str, Any]) -> AccountSettings:
        found = await check(account)
        begun.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(catalog, "check", waits)
    reading = asyncio.ensure_future(catalog.read_again({tmp_path / "password"}, refused=False))
    await begun.wait()
    monkeypatch.setattr(catalog, "check", check)
    await hear(catalog, change("a", 2, address="new@example.com"))
    go_on.set()
    await reading
    assert catalog.all["a"].address == "new@example.com"
    assert catalog.files() == set()


async def test_what_was_paused_stays_paused_where_it_moves_into_a_file_that_is_not_known_here_yet(
    catalog: Catalog,
) -> None:
    there = {"a": Entry(change("a", 1, paused=True).value or b"", 1)}

    async def get(id: str) -> Entry | None:
        return there.get(id)

    async def update(id: str, value: bytes, revision: int) -> int:
        there[id] = Entry(value, revision + 1)
        return revision + 1

    async def remove(id: str, _revision: int) -> None:
        del there[id]

    bucket = cast(Any, catalog.bucket)
    bucket.get, bucket.update, bucket.remove = get, update, remove
    desk = admin._Desk(catalog)
    await hear(catalog, change("a", 1, paused=True))
    file = dict(catalog.all)
    await desk.remove({"id": "a"})
    assert msgspec.json.decode(there["a"].value)["paused"] is True
    await hear(catalog, KeyChange("a", there["a"].value, 2))
    assert catalog.all == {}
    catalog.take_file(file)
    assert catalog.paused == {"a"}
    with pytest.raises(ServiceError, match="settings file"):
        await desk.remove({"id": "a"})
    catalog.take_file({})
    await desk.resume({"id": "a"})
    assert msgspec.json.decode(there["a"].value).get("paused", False) is False
    await desk.remove({"id": "a"})
    assert there == {}


async def test_accounts_that_move_out_of_the_settings_file_after_a_restart_go_on_as_they_are(
    catalog: Catalog,
) -> None:
    await hear(catalog, change("a", 1))
    # A start: the settings file was read, and nothing was heard of yet.
    of_file = dict(catalog.all)
    catalog._of_file, catalog.all = of_file, {}
    catalog._forget("a")
    await hear(catalog, change("a", 1))
    assert catalog.all["a"] is of_file["a"]
    catalog.take_file({})
    assert catalog.all["a"] is of_file["a"]


@pytest.mark.fault("F10")
async def test_accounts_whose_files_are_elsewhere_are_read_though_a_whole_file_system_says_nothing(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mountinfo").write_text(f"1 0 0:1 / / rw - x x rw\n2 1 0:2 / {tmp_path}/away rw - nfs x rw\n")
    monkeypatch.setattr("service.aside.MOUNTS", tmp_path / "mountinfo")
    monkeypatch.setattr("service.aside.LIMIT_S", 0.2)
    (tmp_path / "password").write_text("x")
    pipes = [tmp_path / "away" / f"{n}" for n in range(2 * AT_ONCE)]
    (tmp_path / "away").mkdir()
    for pipe in pipes:
        os.mkfifo(pipe)
    silent = [change(f"a{n}", n + 1, password={"file": f"away/{n}"}) for n in range(len(pipes))]
    try:
        await hear(catalog, *silent, change("b", 100, password={"file": "password"}))
        assert catalog.all.keys() == {"b"}
        await hear(catalog, *silent, change("b", 100, password={"file": "password"}), change("c", 101))
        assert catalog.all.keys() == {"b", "c"}
    finally:
        for late in list(_of_loop[asyncio.get_running_loop()].late.values()):
            (tmp_path / "away" / late.where.removeprefix("account a")).write_text("x")  # its reader ends


async def test_an_account_that_waits_for_a_file_holds_up_none_that_comes_behind_it(
    catalog: Catalog, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    hearing = asyncio.ensure_future(hear(catalog, change("a", 1, password={"file": "pipe"}), change("b", 2)))
    await until(lambda: "b" in catalog._of_bus)
    assert not hearing.done()
    (tmp_path / "pipe").write_text("x")
    await hearing
    assert catalog.all.keys() == {"a", "b"}


@pytest.mark.fault("G04")
@pytest.mark.parametrize("running", [False, True])
async def test_an_account_that_comes_back_paused_is_said_to_be_so_and_at_a_start_none_is(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, running: bool
) -> None:
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr(catalog._reports, "say", lambda *words: said.append(words))
    monkeypatch.setattr(catalog._roster, "owner", lambda _: "one")
    if running:
        catalog.heard.set()
    await hear(catalog, change("a", 1, paused=True))
    assert said == ([("a", "paused")] if running else [])
