"""The list of accounts: thousands of them come in answers that NATS takes, each account once."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.bus import ServiceError
from service.catalog import admin
from service.catalog.catalog import Catalog
from service.contract import encode


def desk(count: int) -> Any:
    """What answers, of so many accounts with names as long as they may be."""
    accounts = {f"{n:064}": SimpleNamespace(address="a" * 64 + "@" + "b" * 255) for n in range(count)}
    catalog = SimpleNamespace(all=accounts, paused=frozenset(), source=lambda _: "bus", owner=lambda _: "x" * 64)
    return admin._Desk(cast(Catalog, catalog))


async def test_ten_thousand_accounts_come_page_by_page_each_once() -> None:
    asked, found, after = desk(10_000), list[str](), ""
    while True:
        page = await asked.list({"after": after} if after else {})
        assert len(encode(page)) < 1024 * 1024
        found += [one["id"] for one in page["list"]]
        if not page["more"]:
            break
        after = found[-1]
    assert found == [f"{n:064}" for n in range(10_000)]


async def test_a_page_after_what_is_no_id_is_refused() -> None:
    with pytest.raises(ServiceError, match="after"):
        await desk(1).list({"after": 7})
