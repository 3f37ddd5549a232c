"""A process as its operators meet it: start, probes, stop, wrong settings, secrets, and a mail's whole way."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from nats.js.errors import KeyNotFoundError

from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import Mailbus, command, imap_account, reading, settings_for, until, with_relay
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay

Maker = Callable[..., Mailbus]


def mail(number: int, size: int = 10) -> bytes:
    return b"Subject: mail %d\r\n\r\n%b\r\n" % (number, b"x" * size)


async def status_of(one: Mailbus, path: str) -> int:
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{one.port}{path}") as response:
        return response.status


async def test_a_mail_becomes_an_event_and_a_request_becomes_a_mail_with_its_status(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix, with_relay(imap_account(dovecot, prefix), relay)), fresh=True)
    one.start()
    await one.started()
    await dovecot.append(prefix, [mail(1)])
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
        code, out, err = await command(
            one, "send", "box", "--to", "you@example.org", "--subject", "Hi", "--text", "hello"
        )
        assert code == 0, err
        status = json.loads(out)
        assert status["state"] == "sent"
        assert status["deliveryStatus"]["you@example.org"]["delivered"] == "unknown"
        (message,) = await relay.received(1)
        assert message.rcpt_to == ["you@example.org"]
        assert b"hello" in message.content
        code, out, _ = await command(one, "check")
        assert code == 0, out
        assert "INBOX (1 messages)" in out
        sent = [event for event in await reader.events("STATUS") if event.kind == "sent"]
        assert len(sent) == 1
    assert await one.stop() == 0


async def test_a_wrong_request_is_refused_at_once_with_the_field(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    account = with_relay({"id": "box", "address": "me@example.com"}, relay)
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    code, out, err = await command(one, "cmd", "box", "send", '{"to": [{"email": "no address"}], "text": "x"}')
    assert code == 1
    assert "to[0].email" in out + err
    code, _, err = await command(one, "cmd", "nobody", "send", '{"to": [{"email": "a@example.org"}], "text": "x"}')
    assert code == 1
    assert "404" in err
    assert await one.stop() == 0


@pytest.mark.fault("F08")
async def test_without_nats_it_is_alive_and_not_ready_and_ready_again_afterwards(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix)))
    one.start()
    await one.started()
    assert (await status_of(one, "/healthz"), await status_of(one, "/readyz")) == (200, 200)
    await own_nats.kill()
    await until(lambda: bool(one.said("nats_disconnected")))
    assert (await status_of(one, "/healthz"), await status_of(one, "/readyz")) == (200, 503)
    await own_nats.start()
    await until(lambda: bool(one.said("nats_reconnected")))
    assert (await status_of(one, "/healthz"), await status_of(one, "/readyz")) == (200, 200)
    assert await one.stop() == 0


@pytest.mark.fault("F08")
async def test_before_nats_is_there_it_waits_alive_and_stops_when_told(mailbus: Maker, prefix: str) -> None:
    one = mailbus(settings_for("nats://127.0.0.1:1", prefix))
    one.start()
    await until(lambda: bool(one.log_file.exists() and one.said("nats_unavailable")))
    assert (await status_of(one, "/healthz"), await status_of(one, "/readyz")) == (200, 503)
    assert await one.stop() == 0


@pytest.mark.fault("F08", "F11")
async def test_one_bad_account_leaves_the_process_ready_and_the_others_at_work(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    bad = imap_account(dovecot, prefix, id="bad") | {"password": "wrong"}
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix), bad))
    await dovecot.append(prefix, [mail(1)])
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
        await until(lambda: any(line["state"] == "auth_failed" for line in one.said("account_state")))
        assert await status_of(one, "/readyz") == 200
        events = await reader.account_events("auth_failed", "connected")
        states = {event.subject: event.body for event in events}
    assert "password" in states[f"{prefix}.account.bad.auth_failed"]["remedy"]
    assert f"{prefix}.account.box.connected" in states
    assert await one.stop() == 0


async def test_mailboxes_named_as_an_accounts_other_parts_are_not_taken_for_them(
    imap_stub: ImapStub, own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    imap_stub.messages = {1: mail(1)}
    imap = {"host": "127.0.0.1", "port": imap_stub.port, "security": "none"}
    incoming = {"imap": imap, "initial": "all", "mailboxes": ["sender", "requests"]}
    account = {"id": "box", "address": "me@example.com", "password": "secret", "incoming": incoming}
    await relay.stop()
    one = mailbus(settings_for(own_nats.url, prefix, with_relay(account, relay)))
    one.start()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(2)
        states = await reader.account_events("disconnected")
        assert [(event.kind, event.body["part"]) for event in states] == [("disconnected", "sender")]
        assert "mailbox" not in states[0].body
        await relay.start()
        await until(lambda: any(line["state"] == "connected" for line in one.said("account_state")))
    assert await one.stop() == 0


@pytest.mark.fault("F11")
async def test_wrong_settings_end_with_78_and_every_error(mailbus: Maker) -> None:
    one = mailbus({"nats": {"servers": ["http://x"]}, "acounts": [], "limits": {"inline": "many"}}, fresh=True)
    one.start()
    assert await one.ended() == 78
    said = one.log_file.read_text()
    for word in ("nats.servers", "acounts", "accounts", "limits.inline"):
        assert word in said


async def test_a_port_that_is_taken_ends_with_78_and_names_the_setting(
    imap_stub: ImapStub, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix, http={"listen": f"127.0.0.1:{imap_stub.port}"}))
    one.start()
    assert await one.ended() == 78
    assert "http.listen" in one.log_file.read_text()


@pytest.mark.fault("F01")
async def test_sigterm_under_full_load_ends_what_is_in_hand_and_exits_0(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    await dovecot.append(prefix, [mail(n, 2000) for n in range(2000)])
    one = mailbus(settings_for(own_nats.url, prefix, with_relay(imap_account(dovecot, prefix), relay)), fresh=True)
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        for number in range(100):
            request = {"id": f"r{number}", "to": [{"email": "a@example.org"}], "text": "x" * 10_000}
            await reader.nc.jetstream().publish(f"{prefix}.out.box", json.dumps(request).encode())
        await relay.received(1)
        assert await asyncio.wait_for(one.stop(), 25) == 0
        taken = len(relay.messages)
        assert one.said("stopped")
        # Whoever else is there need not wait until its name is too old.
        with pytest.raises(KeyNotFoundError):
            await (await reader.nc.jetstream().key_value(f"{prefix}-fleet")).get("one")
        one.start()
        await reader.wait_received(2000)
        await relay.received(100, limit_s=60)
        await until_sent(reader, prefix, 100)
        assert await one.stop() == 0
        subjects = [event.body["subject"] for event in await reader.received()]
        events = await reader.events("STATUS")
    assert taken < 100
    assert subjects == [f"mail {n}" for n in range(2000)]
    assert sorted(event.body["id"] for event in events if event.kind == "sent") == sorted(f"r{n}" for n in range(100))
    assert not [event for event in events if event.kind == "uncertain"]
    assert len(relay.messages) == 100


async def until_sent(reader: Any, prefix: str, count: int) -> None:
    for _ in range(600):
        if await reader.count(f"{prefix}.status.box.sent", "STATUS") >= count:
            return
        await asyncio.sleep(0.05)
    pytest.fail("not all are sent")


def peak_kb(pid: int) -> int:
    """The most memory that a process has held, in KiB. Source: proc(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.fault("A12", "D13")
async def test_memory_stays_flat_over_a_long_mailbox_and_while_nats_is_away(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    def fill() -> None:
        with dovecot.client(prefix) as client:
            for _ in range(60):
                client.append("INBOX", "", "", mail(1, 1_000_000))

    await asyncio.to_thread(fill)
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix)), fresh=True)
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(3)
        await own_nats.kill()
        await until(lambda: bool(one.said("nats_disconnected")))
        # Long enough to read all of it, were reading not to stop.
        await asyncio.sleep(3)
        assert await status_of(one, "/healthz") == 200
        await own_nats.start()
        await reader.wait_received(60)
    assert one.process is not None
    assert peak_kb(one.process.pid) < 200_000
    os.kill(one.process.pid, signal.SIGTERM)
    assert await one.ended() == 0
