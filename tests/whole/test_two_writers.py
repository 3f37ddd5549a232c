"""Two processes with one account: one has it, every event once, no taking turns. And strangers in the log."""

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import Event, Mailbus, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer

Maker = Callable[..., Mailbus]


def mail(number: int) -> bytes:
    return b"Subject: mail %d\r\n\r\nbody\r\n" % number


def subjects_of(events: list[Event]) -> list[str]:
    return [event.body["subject"] for event in events]


def has(one: Mailbus) -> bool:
    """Whether the account is this process's now, as far as it knows."""
    divided = one.said("fleet_divided")
    return bool(divided) and divided[-1]["replicas"].get(one.settings["instance"], 0) == 1


def shares(one: Mailbus) -> dict[str, int]:
    """How the accounts are divided, as this process said last."""
    divided = one.said("fleet_divided")
    return dict(divided[-1]["replicas"]) if divided else {}


async def test_of_two_processes_with_one_account_one_has_it_and_the_other_waits_in_silence(
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
        await until(lambda: len(shares(first)) == 2 and shares(first) == shares(second), what="one view of the fleet")
        owner, other = (first, second) if has(first) else (second, first)
        assert has(owner)
        assert not has(other)
        for number in range(60, 70):
            await dovecot.append(prefix, [mail(number)])
        await reader.wait_received(70)
        # Who stops gives its accounts to the other.
        assert await owner.stop() == 0
        await dovecot.append(prefix, [mail(70)])
        await reader.wait_received(71)
        assert await other.stop() == 0
        assert subjects_of(await reader.received()) == [f"mail {n}" for n in range(71)]
        assert not [event for event in await reader.events("STATUS") if event.kind == "degraded"]


@pytest.mark.fault("D02")
async def test_a_paused_owner_that_wakes_finds_its_account_with_another_and_doubles_nothing(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    account = imap_account(dovecot, prefix)
    brief = {"fleet": {"ttl": "4s"}}
    sleeper = mailbus(settings_for(own_nats.url, prefix, account, instance="sleeper", **brief))
    other = mailbus(settings_for(own_nats.url, prefix, account, instance="other", **brief))
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
        await dovecot.append(prefix, [mail(3)])
        await reader.wait_received(3)
        await until(lambda: len(shares(other)) == 2 and shares(sleeper) == shares(other), what="both in the fleet")
        await dovecot.append(prefix, [mail(4)])
        await reader.wait_received(4)
        assert await sleeper.stop() == 0
        assert await other.stop() == 0
        assert subjects_of(await reader.received()) == ["mail 1", "mail 2", "mail 3", "mail 4"]


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
        await reader.account_events("connected")
        await reader.nc.jetstream().publish(f"{prefix}.in.box.INBOX.x", b"not ours")
        for number in (3, 4):
            await dovecot.append(prefix, [mail(number)])
            await reader.wait_received(number)
        await reader.account_events("connected", "degraded", "connected")
        assert await one.stop() == 0
        one.start()
        await dovecot.append(prefix, [mail(5)])
        await reader.wait_received(5)
        states = await reader.account_events("connected", "degraded", "connected", "connected")
        assert await one.stop() == 0
        assert subjects_of(await reader.received()) == [f"mail {n}" for n in (1, 2, 3, 4, 5)]
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
