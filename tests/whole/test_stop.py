"""SIGTERM while NATS takes connections and says nothing: the process ends well within Kubernetes' 30 s, exit 0.

And while NATS is well, what is in hand gets its time.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import cast

import pytest
from nats.errors import NoRespondersError

from service.app import _farewell
from service.bus import Bus
from service.fleet import NATS_SILENT_S, Presence
from service.ingest import Copies
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader, Mailbus, imap_account, reading, settings_for, until, with_relay
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy, Way
from tests.servers.smtp import ScriptedRelay
from tests.whole.test_life import status_of

pytestmark = pytest.mark.fault("F01")

Maker = Callable[..., Mailbus]
Proxies = Callable[[str, int], Awaitable[FaultProxy]]
# Kubernetes kills after 30 s; mailbus takes 12 as a rule. The rest is this machine's.
LIMIT_S = 20.0


REQUEST = json.dumps({"id": "r1", "to": [{"email": "a@example.org"}], "text": "x"}).encode()


async def stopped(one: Mailbus) -> None:
    began = time.monotonic()
    assert await asyncio.wait_for(one.stop(), 60) == 0
    assert time.monotonic() - began < LIMIT_S


async def test_before_it_has_started(own_nats: NatsServer, mailbus: Maker, prefix: str, fault_proxy: Proxies) -> None:
    proxy = await fault_proxy("127.0.0.1", own_nats.port)
    proxy.stall()
    one = mailbus(settings_for(f"nats://127.0.0.1:{proxy.port}", prefix))
    one.start()
    await until(lambda: proxy.connections > 0)
    await stopped(one)


async def test_while_it_looks_at_the_streams(
    own_nats: NatsServer, mailbus: Maker, prefix: str, fault_proxy: Proxies
) -> None:
    proxy = await fault_proxy("127.0.0.1", own_nats.port)

    def watch(way: Way, chunk: bytes) -> bytes:
        if way is Way.TO_SERVER and b"STREAM." in chunk:
            proxy.swallow()
            asked.set()
        return chunk

    asked = asyncio.Event()
    proxy.watch = watch
    one = mailbus(settings_for(f"nats://127.0.0.1:{proxy.port}", prefix))
    one.start()
    await asyncio.wait_for(asked.wait(), 30)
    await stopped(one)


@pytest.mark.parametrize("how", ["stall", "swallow"])
async def test_at_rest(
    dovecot: Dovecot,
    own_nats: NatsServer,
    mailbus: Maker,
    prefix: str,
    relay: ScriptedRelay,
    fault_proxy: Proxies,
    how: str,
) -> None:
    proxy = await fault_proxy("127.0.0.1", own_nats.port)
    account = with_relay(imap_account(dovecot, prefix), relay)
    one = mailbus(settings_for(f"nats://127.0.0.1:{proxy.port}", prefix, account))
    one.start()
    await until(lambda: any(line["state"] == "connected" for line in one.said("account_state")))
    getattr(proxy, how)()
    await stopped(one)


async def test_with_a_commit_under_way(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, fault_proxy: Proxies
) -> None:
    proxy = await fault_proxy("127.0.0.1", own_nats.port)
    seen = asyncio.Event()

    def watch(way: Way, chunk: bytes) -> bytes:
        if way is Way.TO_SERVER and b"Nats-Batch-Commit" in chunk:
            proxy.stall()
            seen.set()
        return chunk

    await dovecot.append(prefix, [b"Subject: mail %d\r\n\r\nx\r\n" % n for n in range(20)])
    proxy.watch = watch
    one = mailbus(settings_for(f"nats://127.0.0.1:{proxy.port}", prefix, imap_account(dovecot, prefix)))
    one.start()
    await asyncio.wait_for(seen.wait(), 30)
    await stopped(one)
    async with reading(own_nats.url, prefix) as reader:
        proxy.heal()
        one.start()
        await one.started()
        events = await reader.wait_received(20)
        assert await one.stop() == 0
    assert [event.body["subject"] for event in events] == [f"mail {n}" for n in range(20)]


async def test_with_mail_at_the_relay(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay, fault_proxy: Proxies
) -> None:
    proxy = await fault_proxy("127.0.0.1", own_nats.port)
    account = with_relay({"id": "box", "address": "me@example.com"}, relay)
    one = mailbus(settings_for(f"nats://127.0.0.1:{proxy.port}", prefix, account))
    one.start()
    await one.started()
    seen = asyncio.Event()

    def watch(way: Way, chunk: bytes) -> bytes:
        if way is Way.TO_SERVER and f"HPUB $KV.{prefix}-sends".encode() in chunk:
            proxy.stall()
            seen.set()
        return chunk

    async with reading(own_nats.url, prefix) as reader:
        proxy.watch = watch
        await reader.nc.jetstream().publish(f"{prefix}.out.box", REQUEST)
        await asyncio.wait_for(seen.wait(), 30)
        await stopped(one)


@asynccontextmanager
async def at_a_slow_relay(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> AsyncIterator[tuple[Mailbus, asyncio.Event, BusReader]]:
    """A mail whose end the relay does not answer before the event is set."""
    relay.script.hold = hold = asyncio.Event()
    one = mailbus(settings_for(own_nats.url, prefix, with_relay({"id": "box", "address": "me@example.com"}, relay)))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.nc.jetstream().publish(f"{prefix}.out.box", REQUEST)
        await until(lambda: relay.data_commands == 1)
        yield one, hold, reader


@pytest.mark.parametrize("answers", [True, False])
async def test_nats_well_and_a_relay_that_takes_its_time_gets_it_up_to_a_limit(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay, *, answers: bool
) -> None:
    async with at_a_slow_relay(own_nats, mailbus, prefix, relay) as (one, hold, reader):
        async with asyncio.TaskGroup() as group:
            stop = group.create_task(stopped(one))
            await until(lambda: bool(one.said("stopping")))
            if answers:
                # Longer than a silent NATS would have been waited for.
                await asyncio.sleep(NATS_SILENT_S + 1)
                assert not stop.done()
                hold.set()
        states = [event.kind for event in await reader.events("STATUS") if ".status." in event.subject]
    assert states == (["sent"] if answers else [])


async def test_while_it_ends_it_is_alive_and_not_ready_and_takes_nothing_new(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    async with at_a_slow_relay(own_nats, mailbus, prefix, relay) as (one, hold, reader):
        async with asyncio.TaskGroup() as group:
            group.create_task(stopped(one))
            await until(lambda: bool(one.said("stopping")))
            assert (await status_of(one, "/healthz"), await status_of(one, "/readyz")) == (200, 503)
            late = json.dumps({"id": "r2", "to": [{"email": "b@example.org"}], "text": "x"}).encode()
            await reader.nc.jetstream().publish(f"{prefix}.out.box", late)
            hold.set()
        sent = [event.body["id"] for event in await reader.events("STATUS") if event.kind == "sent"]
        waits = await reader.count(f"{prefix}.out.box", "OUT")
    assert sent == ["r1"]
    assert [message.rcpt_to for message in relay.messages] == [["a@example.org"]]
    assert waits == 1


async def test_an_account_that_is_being_released_keeps_its_time(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    relay.script.hold = asyncio.Event()
    account = with_relay({"id": "box", "address": "me@example.com"}, relay)
    settings = settings_for(own_nats.url, prefix, account)
    one = mailbus(settings)
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.nc.jetstream().publish(f"{prefix}.out.box", REQUEST)
        await until(lambda: relay.data_commands == 1)
        divided = len(one.said("fleet_divided"))
        one.write(json.dumps(settings | {"accounts": [account | {"address": "you@example.com"}]}))
        # Said in the same breath in which what the account has in hand is asked to end.
        await until(lambda: len(one.said("fleet_divided")) > divided)
        async with asyncio.TaskGroup() as group:
            group.create_task(stopped(one))
            await until(lambda: bool(one.said("stopping")))
            # Time enough for a second cancellation to cut the first one's short.
            await asyncio.sleep(0.5)
            relay.script.hold.set()
        states = [event.kind for event in await reader.events("STATUS") if ".status." in event.subject]
    assert states == ["sent"]
    assert len(relay.messages) == 1


async def test_a_command_in_hand_is_answered_and_no_other_is_taken(
    own_nats: NatsServer, mailbus: Maker, prefix: str, imap_stub: ImapStub
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def search(connection: Connection, tag: str, arguments: str) -> bool:
        asked.set()
        await go_on.wait()
        await connection.send(f"* SEARCH 1\r\n{tag} OK\r\n")
        return True

    account = {"id": "box", "address": "me@example.com", "password": "secret"}
    imap = {"host": "127.0.0.1", "port": imap_stub.port, "security": "none"}
    one = mailbus(settings_for(own_nats.url, prefix, account | {"incoming": {"imap": imap}}))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader, asyncio.TaskGroup() as group:
        await until(lambda: bool(imap_stub.connections) and bool(imap_stub.connections[0].idling))
        imap_stub.hooks["UID SEARCH"] = search
        subject = f"{prefix}.cmd.box.search"
        answer = group.create_task(reader.nc.request(subject, b'{"mailbox": "INBOX"}', timeout=30))
        await asyncio.wait_for(asked.wait(), 30)
        stop = group.create_task(stopped(one))
        await until(lambda: bool(one.said("stopping")))
        with suppress(NoRespondersError):  # nobody else is there
            while True:
                await reader.nc.request(subject, b'{"mailbox": "INBOX"}', timeout=30)
        go_on.set()
    assert json.loads(answer.result().data)["ids"] != []
    assert stop.done()


async def farewell(*, leave: Callable[[], Awaitable[None]], flush: Callable[[], Awaitable[None]]) -> None:
    """As a process has it that ends, with a NATS that answers."""

    async def answers(_: float) -> bool:
        return True

    bus, presence, copies = SimpleNamespace(answers=answers), SimpleNamespace(leave=leave), SimpleNamespace(flush=flush)
    await _farewell(cast(Bus, bus), cast(Presence, presence), cast(Copies, copies))


async def test_the_name_is_given_back_however_many_copies_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.app.FAREWELL_TIMEOUT_S", 0.1)
    left = asyncio.Event()

    async def leave() -> None:
        left.set()

    async def flush() -> None:
        await asyncio.Event().wait()

    await farewell(leave=leave, flush=flush)
    assert left.is_set()


async def test_a_name_that_cannot_be_given_back_leaves_time_for_the_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.app.LEAVE_TIMEOUT_S", 0.01)
    copied = asyncio.Event()

    async def leave() -> None:
        await asyncio.Event().wait()

    async def flush() -> None:
        copied.set()

    await farewell(leave=leave, flush=flush)
    assert copied.is_set()
