"""A watch of the accounts that tells nothing any more though NATS keeps it: it is begun anew, and what it missed heard.

NATS pauses its consumer, as a server whose copy of the bucket has stopped does: heartbeats go on, and nothing comes.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from service.bus import Bus, NatsOptions, StreamOptions, open_bus
from service.bus.errors import js_api
from service.catalog import Catalog
from service.clock import SystemClock
from service.errors import Transient
from service.fleet import AccountReports, Presence, Roster
from service.settings import AccountSettings, Settings
from tests.catalog.test_catalog import change
from tests.servers.mailbus import until
from tests.servers.nats import NatsServer

pytestmark = pytest.mark.fault("F02", "F03")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.bus.watch.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("service.catalog.catalog.LISTEN_AGAIN_S", 0.1)


@pytest.fixture
async def bus(nats_server: NatsServer, prefix: str) -> AsyncIterator[Bus]:
    async with open_bus(NatsOptions(servers=(nats_server.url,), prefix=prefix), StreamOptions()) as bus:
        yield bus


async def pause(bus: Bus) -> None:
    """Whoever watches the accounts hears nothing of them from now on."""
    stream = f"KV_{bus.subjects.accounts}"
    for_long = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for name in (await js_api(bus.nc, f"CONSUMER.NAMES.{stream}"))["consumers"]:
        await js_api(bus.nc, f"CONSUMER.PAUSE.{stream}.{name}", {"pause_until": for_long})


async def test_accounts_that_a_deaf_watch_did_not_tell_of_are_heard_of(bus: Bus, tmp_path: Path) -> None:
    bucket = bus.key_value(bus.subjects.accounts)
    presence = cast(Presence, SimpleNamespace(instance="one", say=lambda **_: None))
    roster = Roster[AccountSettings](bucket, presence, SystemClock())
    reports = cast(AccountReports, SimpleNamespace(say=lambda *_: None))
    catalog = Catalog(bucket, Settings(), tmp_path, roster, reports, SystemClock())
    following = asyncio.create_task(catalog.follow())
    await bucket.create("a", change("a", 1).value or b"")
    await until(lambda: catalog.all.keys() == {"a"})
    await pause(bus)
    await bucket.create("b", change("b", 2).value or b"")
    await bucket.delete("a")
    await until(lambda: catalog.all.keys() == {"b"})
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


async def test_a_watch_to_which_nothing_happens_goes_on_and_one_that_is_deaf_ends(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bus.watch.QUIET_HEARTBEATS", 1)
    keys = bus.key_value(bus.subjects.accounts)
    await keys.create("one", b"1")
    async with aclosing(keys.watch()) as watch:
        assert [one.key for one in await anext(watch)] == ["one"]
        coming = asyncio.ensure_future(anext(watch))
        await asyncio.wait([coming], timeout=2)  # some looks
        assert not coming.done()
        await keys.create("two", b"2")
        assert [one.key for one in await coming] == ["two"]
        await pause(bus)
        await keys.create("three", b"3")
        with pytest.raises(Transient, match="deaf"):
            await asyncio.wait_for(anext(watch), 20)
