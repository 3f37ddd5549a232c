"""What the bucket says, again and again → accounts, each read as often as it must be."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from service.bus import KeyChange, KeyValue
from service.catalog import Catalog
from service.clock import SystemClock
from service.fleet import AccountReports, Presence, Roster
from service.settings import AccountSettings, Settings


def change(id: str, seq: int, *, paused: bool = False, **account: Any) -> KeyChange:
    written = {
        "id": id,
        "address": "a@example.com",
        "password": "x",
        "incoming": {"imap": {"host": "imap.example.com"}},
    }
    return KeyChange(id, msgspec.json.encode({"account": written | account, "paused": paused}), seq)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    presence = cast(Presence, SimpleNamespace(instance="one", say=lambda **_: None))
    bucket = cast(KeyValue, SimpleNamespace())
    roster = Roster[AccountSettings](bucket, presence, SystemClock())
    reports = cast(AccountReports, SimpleNamespace(say=lambda *_: None))
    return Catalog(bucket, Settings(), tmp_path, roster, reports, SystemClock())


async def hear(catalog: Catalog, *changes: KeyChange) -> None:
    await catalog._hear_all(list(changes))
    catalog._apply()


async def test_after_a_lost_connection_accounts_that_are_as_before_are_neither_read_nor_begun_anew(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hear(catalog, change("a", 1), change("b", 2), change("c", 3))
    before, read = dict(catalog.all), list[str]()
    check = catalog.check

    def counted(account: dict[str, object]) -> AccountSettings:
        read.append(str(account["id"]))
        return check(account)

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
    catalog.read_again({file})
    assert catalog.all["a"].password.reveal() == "one"
    file.write_text("two")
    catalog.read_again({file, tmp_path / "other"})
    assert catalog.all["a"].password.reveal() == "two"
