"""mailbus as a process on a maildrop of Dovecot: announced, deleted, and told as removed; over a stop and a start."""

import asyncio
import poplib
from collections.abc import Callable
from typing import Any

from tests.ingest.view import mail
from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import PASSWORD
from tests.servers.mailbus import BusReader, Event, Mailbus, command, reading, settings_for
from tests.servers.nats import NatsServer

Maker = Callable[..., Mailbus]


def pop3_account(server: Dovecot, user: str, **incoming: Any) -> dict[str, Any]:
    """An account that reads a maildrop of Dovecot."""
    return {
        "id": "box",
        "address": f"{user}@example.com",
        "username": user,
        "password": PASSWORD,
        "incoming": {
            "pop3": {"host": server.host, "port": server.pop3, "security": "none", "reply": "5s"},
            "initial": "all",
            "poll": "1s",
        }
        | incoming,
    }


def count_now(server: Dovecot, user: str) -> int:
    client = poplib.POP3(server.host, server.pop3, timeout=20)
    client.user(user)
    client.pass_(PASSWORD)
    count, _ = client.stat()
    client.quit()
    return count


async def emptied(server: Dovecot, user: str) -> None:
    """Until nothing is left in the maildrop."""
    deadline = asyncio.get_running_loop().time() + 30
    while count := await asyncio.to_thread(count_now, server, user):
        assert asyncio.get_running_loop().time() < deadline, f"{count} messages are left"
        await asyncio.sleep(0.1)


async def wait_events(reader: BusReader, count: int) -> None:
    """Until the log holds so many events."""
    deadline = asyncio.get_running_loop().time() + 30
    while (there := await reader.count(f"{reader.prefix}.in.>")) < count:
        assert asyncio.get_running_loop().time() < deadline, f"{there} of {count} events"
        await asyncio.sleep(0.05)


def told(events: list[Event]) -> list[tuple[str, str | None]]:
    """What consumers were told, without what differs from run to run."""
    names = {event.body["id"]: event.body["subject"] for event in events if event.kind == "received"}
    return [(event.kind, names.get(event.body.get("id", ""))) for event in events]


async def test_a_maildrop_is_announced_and_emptied_and_what_arrives_is_told(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    await dovecot.append(prefix, [mail(1), mail(2)])
    account = pop3_account(dovecot, prefix, after="delete", after_delay="10ms")
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    async with reading(own_nats.url, prefix) as reader:
        await emptied(dovecot, prefix)
        await wait_events(reader, 5)
        assert await one.stop() == 0
        await dovecot.append(prefix, [mail(3)])
        one.start()
        await emptied(dovecot, prefix)
        await wait_events(reader, 7)
        refused = await reader.nc.request(f"{prefix}.cmd.box.search", b'{"mailbox": "INBOX"}', timeout=10)
        events = await reader.events()
        states = [event.body["state"] for event in await reader.events("STATUS")]
    assert "POP3" in (refused.headers or {})["Nats-Service-Error"]
    code, out, _ = await command(one, "check")
    assert code == 0, out
    assert "0 messages" in out
    assert told(events) == [
        ("reset", None),
        ("received", "mail 1"),
        ("received", "mail 2"),
        ("removed", "mail 1"),
        ("removed", "mail 2"),
        ("received", "mail 3"),
        ("removed", "mail 3"),
    ]
    assert set(states) == {"connected"}
    assert await one.stop() == 0
