"""The log is not what it was when mailbus comes back: the account says so, and what is right follows."""

import asyncio
import shutil
from collections.abc import Callable

import aiohttp
import pytest

from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import Event, Mailbus, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer

Maker = Callable[..., Mailbus]


def mail(number: int) -> bytes:
    return b"Subject: mail %d\r\n\r\nbody\r\n" % number


async def metric(one: Mailbus, name: str) -> float:
    """A counter of the process, as a scrape has it."""
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{one.port}/metrics") as response:
        lines = (await response.text()).splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


async def announced(one: Mailbus, own_nats: NatsServer, prefix: str, count: int) -> list[Event]:
    """One life of the process, until so many mails are in the log and their position is copied."""
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(count)
        await until(lambda: any(line["state"] == "connected" for line in one.said("account_state")))
        assert await one.stop() == 0
        return await reader.received()


@pytest.mark.fault("D08")
async def test_a_log_made_anew_is_said_by_the_account_and_begins_by_the_initial_rule(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    await dovecot.append(prefix, [mail(1)])
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix)))
    await announced(one, own_nats, prefix, 1)
    one.settings["accounts"][0]["incoming"]["initial"] = "new"
    async with reading(own_nats.url, prefix) as reader:
        await reader.nc.jetstream().delete_stream(f"{prefix.upper()}_IN")
        await reader.nc.jetstream().purge_stream(f"{prefix.upper()}_STATUS")
        one.start()
        states = await reader.account_events("degraded", "connected")
        await dovecot.append(prefix, [mail(2)])
        await reader.wait_received(1)
        assert await one.stop() == 0
        events = await reader.events()
    assert [state.kind for state in states] == ["degraded", "connected"]
    assert "the log is another than before" in states[0].body["detail"]
    assert states[0].body["remedy"]
    assert [event.body.get("subject") for event in events if event.kind == "received"] == ["mail 2"]
    assert [event.body["reason"] for event in events if event.kind == "reset"] == ["start"]


@pytest.mark.fault("D07")
async def test_a_log_that_went_back_is_said_by_the_account_and_counted_and_its_events_come_again(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix)))
    await dovecot.append(prefix, [mail(1)])
    await announced(one, own_nats, prefix, 1)
    await own_nats.stop()
    stream = next((own_nats.folder / "store").glob(f"jetstream/**/streams/{prefix.upper()}_IN"))
    snapshot = own_nats.folder / "snapshot"
    shutil.copytree(stream, snapshot)
    await own_nats.start()
    await dovecot.append(prefix, [mail(2), mail(3)])
    before = await announced(one, own_nats, prefix, 3)
    await own_nats.stop()
    await asyncio.to_thread(shutil.rmtree, stream)
    shutil.copytree(snapshot, stream)
    await own_nats.start()
    async with reading(own_nats.url, prefix) as reader:
        await reader.nc.jetstream().purge_stream(f"{prefix.upper()}_STATUS")
        one.start()
        await one.started()
        again = await reader.wait_received(3)
        states = await reader.account_events("degraded", "connected")
        assert await metric(one, "mailbus_log_rollback_total") == 1
        assert await one.stop() == 0
    assert "the log was rolled back" in states[0].body["detail"]
    assert [state.kind for state in states] == ["degraded", "connected"]
    assert [event.headers["ce-id"] for event in again] == [event.headers["ce-id"] for event in before]
