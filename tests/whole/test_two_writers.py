"""Two processes on one mailbox by mistake: every event once, one lets go, no taking turns. And strangers in the log."""

import asyncio
import os
import signal
from collections.abc import Callable

import aiohttp
import pytest

from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import Event, Mailbus, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer

Maker = Callable[..., Mailbus]


def mail(number: int) -> bytes:
    return b"Subject: mail %d\r\n\r\nbody\r\n" % number


def subjects_of(events: list[Event]) -> list[str]:
    return [event.body["subject"] for event in events]


def let_go(one: Mailbus) -> list[dict[str, object]]:
    """The lines in which a process says that it gave way."""
    return [line for line in one.said("account_state") if "writes this mailbox now" in line["error"]]


async def test_the_loser_says_so_once_and_they_do_not_take_turns(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    account = imap_account(dovecot, prefix)
    first = mailbus(settings_for(own_nats.url, prefix, account, instance="first"))
    second = mailbus(settings_for(own_nats.url, prefix, account, instance="second"))
    await dovecot.append(prefix, [mail(n) for n in range(50)])
    first.start()
    second.start()
    await first.started()
    await second.started()
    async with reading(own_nats.url, prefix) as reader:
        for number in range(50, 60):
            await dovecot.append(prefix, [mail(number)])
        await reader.wait_received(60)
        await until(lambda: bool(let_go(first) or let_go(second)))
        for number in range(60, 70):
            await dovecot.append(prefix, [mail(number)])
        await reader.wait_received(70)
        assert await first.stop() == 0
        assert await second.stop() == 0
        assert subjects_of(await reader.received()) == [f"mail {n}" for n in range(70)]
        states = [event for event in await reader.events("STATUS") if event.kind == "degraded"]
    assert len(let_go(first)) + len(let_go(second)) == 1
    assert len(states) == 1
    assert "writes this mailbox now" in states[0].body["detail"]


@pytest.mark.fault("D02")
async def test_a_paused_owner_that_wakes_is_refused_and_lets_go(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    account = imap_account(dovecot, prefix)
    sleeper = mailbus(settings_for(own_nats.url, prefix, account, instance="sleeper"))
    other = mailbus(settings_for(own_nats.url, prefix, account, instance="other"))
    await dovecot.append(prefix, [mail(1)])
    sleeper.start()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
        assert sleeper.process is not None
        os.kill(sleeper.process.pid, signal.SIGSTOP)
        await dovecot.append(prefix, [mail(2)])
        other.start()
        await reader.wait_received(2)
        os.kill(sleeper.process.pid, signal.SIGCONT)
        await until(lambda: bool(let_go(sleeper)))
        await dovecot.append(prefix, [mail(3)])
        await reader.wait_received(3)
        url = f"http://127.0.0.1:{sleeper.port}/metrics"
        async with aiohttp.ClientSession() as client, client.get(url) as response:
            assert "mailbus_fence_refused_total 1.0" in await response.text()
        assert await sleeper.stop() == 0
        assert await other.stop() == 0
        assert subjects_of(await reader.received()) == ["mail 1", "mail 2", "mail 3"]


@pytest.mark.fault("D19")
async def test_a_stranger_in_the_log_degrades_the_account_once_and_holds_up_no_mail(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix)))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        for number in (1, 2):
            await dovecot.append(prefix, [mail(number)])
            await reader.wait_received(number)
        await until(lambda: bool(one.said("account_state")))
        await reader.nc.jetstream().publish(f"{prefix}.in.box.INBOX.x", b"not ours")
        for number in (3, 4):
            await dovecot.append(prefix, [mail(number)])
            await reader.wait_received(number)
        await until(lambda: len(one.said("account_state")) == 3)
        assert await one.stop() == 0
        one.start()
        await dovecot.append(prefix, [mail(5)])
        await reader.wait_received(5)
        await until(lambda: bool(one.said("account_state")))
        assert await one.stop() == 0
        assert subjects_of(await reader.received()) == [f"mail {n}" for n in (1, 2, 3, 4, 5)]
        states = [event for event in await reader.events("STATUS") if ".account." in event.subject]
    assert [event.kind for event in states] == ["connected", "degraded", "connected", "connected"]
    assert "none of mailbus's" in states[1].body["detail"]
    assert "permissions" in states[1].body["remedy"]


async def test_a_second_process_of_the_same_name_takes_over_and_the_older_one_ends_with_78(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    account = imap_account(dovecot, prefix)
    older = mailbus(settings_for(own_nats.url, prefix, account))
    newer = mailbus(settings_for(own_nats.url, prefix, account))
    older.start()
    await older.started()
    newer.start()
    await newer.started()
    assert await older.ended(30) == 78
    assert "another process runs as instance one" in older.log_file.read_text()
    await dovecot.append(prefix, [mail(1)])
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
    assert await newer.stop() == 0


async def test_a_killed_process_is_back_at_once_under_its_own_name(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix)))
    one.start()
    await one.started()
    one.kill()
    one.start()
    await one.started()
    await dovecot.append(prefix, [mail(1)])
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
    assert await asyncio.wait_for(one.stop(), 30) == 0
