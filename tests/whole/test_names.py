"""Mailboxes that appear and are renamed while mailbus is away, or killed: their mail is told once. On real Dovecot."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable

import pytest

from service.ingest.cursor import name_id
from tests.ingest.view import View, act, mail, there_now
from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import ImapServer
from tests.servers.mailbus import BusReader, Event, Mailbus, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer
from tests.whole.test_boxes import by_mailbox, counted, deliver, heard, make

Maker = Callable[..., Mailbus]


async def changed_while(dovecot: Dovecot, prefix: str) -> None:
    """A mailbox comes, with a mail, and one is renamed, and gets one."""

    def change() -> None:
        with dovecot.client(prefix) as client:
            client.create("Born")
            client.append("Born", "", "", mail(21))
            client.rename("Old", "New")
            client.append("New", "", "", mail(22))

    await asyncio.to_thread(change)


def rename(server: ImapServer, user: str, *pairs: tuple[str, str]) -> None:
    """One after the other."""
    with server.client(user) as client:
        for old, new in pairs:
            client.rename(old, new)


async def begun(one: Mailbus, reader: BusReader, server: ImapServer) -> None:
    """Two mailboxes are followed, one with an announced mail and one that is older than the start."""
    await make(server, reader.prefix, "Old")
    await deliver(server, reader.prefix, ["Old"], first=1)
    one.start()
    await one.started()
    await heard(one, "INBOX", "Old")
    await deliver(server, reader.prefix, ["Old"], first=11)
    await reader.wait_received(1)
    await until(lambda: bool(one.said("mailboxes_known")), what="names")


def told_once(events: list[Event]) -> None:
    found = by_mailbox(events)
    assert {name: [event.body.get("subject") for event in some] for name, some in found.items()} == {
        "INBOX": [None],
        "Old": [None, "mail 11"],
        "Born": [None, "mail 21"],
        "New": [None, "mail 22"],
    }
    reset = found["New"][0].body
    assert (reset["reason"], reset["oldMailbox"]) == ("renamed", "Old")


@pytest.mark.fault("A18")
async def test_what_appeared_and_was_renamed_while_nobody_ran_is_announced_once(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    mine = imap_account(dovecot, prefix, mailboxes=["*"], exclude=["Sent", "Trash"], initial="new", poll="1s")
    one = mailbus(settings_for(own_nats.url, prefix, mine))
    async with reading(own_nats.url, prefix) as reader:
        await begun(one, reader, dovecot)
        assert await one.stop() == 0
        await changed_while(dovecot, prefix)
        one.start()
        await reader.wait_received(3)
        await heard(one, "Born", "New")
        told_once(await reader.events())
    assert await one.stop() == 0


@pytest.mark.fault("A18")
async def test_renamed_again_and_to_a_name_that_was_anothers_a_mailbox_is_known_by_its_last_name(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    mine = imap_account(dovecot, prefix, mailboxes=["*"], exclude=["Sent", "Trash"], initial="new", poll="1s")
    one = mailbus(settings_for(own_nats.url, prefix, mine))

    async with reading(own_nats.url, prefix) as reader:
        await make(dovecot, prefix, "Taken")
        await begun(one, reader, dovecot)
        await asyncio.to_thread(rename, dovecot, prefix, ("Old", "Between"))
        await deliver(dovecot, prefix, ["Between"], first=12)
        await reader.wait_received(2)
        assert await one.stop() == 0
        # No message speaks for its last position: what came last was gone before anybody had read it.
        await deliver(dovecot, prefix, ["Between"], first=99)
        commands = [("STORE", "4", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",), ("STORE", "3", "+FLAGS", r"(\Seen)")]
        await act(dovecot, prefix, *commands, mailbox="Between")
        one.start()
        await counted(reader, changed=1)
        assert await one.stop() == 0
        # It was announced under two names by now; the third is one that another had, which is gone for good.
        await asyncio.to_thread(rename, dovecot, prefix, ("Taken", "Left"), ("Between", "Taken"), ("Left", "Last"))
        await deliver(dovecot, prefix, ["Taken", "Last"], first=13)
        one.start()
        await reader.wait_received(4)
        await heard(one, "Taken", "Last")
        found = by_mailbox(await reader.events())
    told = {name: [event.body.get("subject") for event in some] for name, some in found.items()}
    assert told == {
        "INBOX": [None],
        "Old": [None, "mail 11"],
        "Between": [None, "mail 12", None],
        "Taken": [None, None, "mail 13"],
        "Last": [None, "mail 14"],
    }
    reset = found["Taken"][1].body
    assert (reset["reason"], reset["oldMailbox"]) == ("renamed", "Between")
    assert await one.stop() == 0


@pytest.mark.fault("A18")
# Dovecot has no MAILBOXID: there a number and messages tell; Cyrus has it.
@pytest.mark.parametrize(("habit", "running"), [("qresync", True), ("cyrus", False)])
async def test_of_a_mailbox_that_is_renamed_away_and_its_name_given_to_another_no_mail_is_told_again(
    server_that: Callable[[str], ImapServer],
    own_nats: NatsServer,
    mailbus: Maker,
    prefix: str,
    habit: str,
    running: bool,
) -> None:
    server = server_that(habit)
    mine = imap_account(server, prefix, mailboxes=["*"], exclude=["Sent", "Trash"], initial="new", poll="1s")
    one = mailbus(settings_for(own_nats.url, prefix, mine))

    def change() -> None:
        with server.client(prefix) as client:
            client.rename("Old", "New")
            client.create("Old")
            client.append("New", "", "", mail(21))
            client.append("Old", "", "", mail(22))

    async with reading(own_nats.url, prefix) as reader:
        await begun(one, reader, server)
        if not running:
            assert await one.stop() == 0
        await asyncio.to_thread(change)
        if not running:
            one.start()
        await reader.wait_received(3)
        await heard(one, "New")
        # Each goes on under its own name.
        await deliver(server, prefix, ["New", "Old"], first=31)
        await reader.wait_received(5)
        found = by_mailbox(await reader.events())
        told = Counter(event.body["subject"] for event in await reader.received())
    assert told == Counter(f"mail {number}" for number in (11, 21, 22, 31, 32))
    (reset,) = [event.body for event in found["New"] if event.kind == "reset"]
    assert (reset["reason"], reset["oldMailbox"]) == ("renamed", "Old")
    assert [event.body["reason"] for event in found["Old"] if event.kind == "reset"] == ["start", "uidvalidity"]
    assert [event.body["subject"] for event in found["New"] if event.kind == "received"][-1] == "mail 31"
    assert [event.body["subject"] for event in found["Old"] if event.kind == "received"][-2:] == ["mail 22", "mail 32"]
    assert await one.stop() == 0


@pytest.mark.fault("A18", "D01")
async def test_killed_again_and_again_while_one_appears_and_another_is_renamed_each_mail_is_told_once(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    mine = imap_account(dovecot, prefix, mailboxes=["*"], exclude=["Sent", "Trash"], initial="new", poll="1s")
    one = mailbus(settings_for(own_nats.url, prefix, mine))
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    async with reading(own_nats.url, prefix) as reader:
        await begun(one, reader, dovecot)
        await changed_while(dovecot, prefix)
        await asyncio.sleep(chance.uniform(0, 1.2))
        one.kill()
        for _ in range(4):
            # At one of the durable steps that are left: before, between and after those of the new mailboxes.
            one.start(MAILBUS_STOP_AT=str(chance.randint(2, 5)))
            await until(lambda: one.exited is not None or looked_at(one), what="a kill")
            one.kill()
        one.start()
        await reader.wait_received(3)
        await until(lambda: looked_at(one), what="all mailboxes")
        told_once(await reader.events())
    assert await one.stop() == 0


def looked_at(one: Mailbus) -> bool:
    """Whether nothing is left to do: names that are new are known once their mailboxes have begun."""
    return any(line["count"] >= 3 for line in one.said("mailboxes_known")) or any(
        line["state"] == "connected" for line in one.said("account_state")
    )


@pytest.mark.fault("A18")
@pytest.mark.parametrize("habit", ["qresync", "cyrus"])
async def test_of_two_that_swapped_and_one_whose_letters_changed_case_events_make_what_is_there(
    server_that: Callable[[str], ImapServer], own_nats: NatsServer, mailbus: Maker, prefix: str, habit: str
) -> None:
    server = server_that(habit)
    await make(server, prefix, "One", "Two", "case")
    await deliver(server, prefix, ["One", "Two", "Two", "case"])
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(server, prefix, mailboxes=["*"], poll="1s")))
    one.start()
    await one.started()

    def change() -> None:
        with server.client(prefix) as client:
            for old, new in [("One", "Third"), ("Two", "One"), ("Third", "Two"), ("case", "Case")]:
                client.rename(old, new)
            for name in ("One", "Two", "Case"):
                client.append(name, "", "", mail(20))

    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(4)
        await asyncio.to_thread(change)
        for name in ("One", "Two", "Case"):
            there = await asyncio.to_thread(there_now, server, prefix, name)
            await made(reader, name, there)
    assert await one.stop() == 0


async def made(reader: BusReader, mailbox: str, there: dict[int, set[str]]) -> None:
    """Until events make of a mailbox what is there."""
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        events = by_mailbox(await reader.events()).get(mailbox, [])
        if (found := View().read(events)).messages == there:
            return
        assert asyncio.get_running_loop().time() < deadline, (mailbox, found, there)
        await asyncio.sleep(0.1)


@pytest.mark.fault("A18")
@pytest.mark.parametrize(("habit", "running"), [("qresync", True), ("cyrus", False)])
async def test_renamed_and_renamed_back_a_mailbox_goes_on_from_its_other_name(
    server_that: Callable[[str], ImapServer],
    own_nats: NatsServer,
    mailbus: Maker,
    prefix: str,
    habit: str,
    running: bool,
) -> None:
    server = server_that(habit)
    mine = imap_account(server, prefix, mailboxes=["*"], exclude=["Sent", "Trash"], initial="new", poll="1s")
    one = mailbus(settings_for(own_nats.url, prefix, mine))
    async with reading(own_nats.url, prefix) as reader:
        await begun(one, reader, server)
        await asyncio.to_thread(rename, server, prefix, ("Old", "New"))
        await deliver(server, prefix, ["New"], first=12)
        await reader.wait_received(2)
        if not running:
            assert await one.stop() == 0
        await asyncio.to_thread(rename, server, prefix, ("New", "Old"))
        await deliver(server, prefix, ["Old"], first=13)
        if not running:
            one.start()
        await reader.wait_received(3)
        await deliver(server, prefix, ["Old"], first=14)
        await received(reader, "mail 14")
        found = by_mailbox(await reader.events())
    told = {name: [event.body.get("subject") for event in some] for name, some in found.items()}
    assert told == {
        "INBOX": [None],
        "Old": [None, "mail 11", None, "mail 13", "mail 14"],
        "New": [None, "mail 12"],
    }
    resets = [event.body for event in found["Old"] if event.kind == "reset"]
    assert [(body["reason"], body.get("oldMailbox")) for body in resets] == [("start", None), ("renamed", "New")]
    assert await one.stop() == 0


@pytest.mark.fault("A18")
@pytest.mark.parametrize("habit", ["qresync", "cyrus"])
async def test_two_that_swap_their_names_again_and_again_tell_each_mail_once(
    server_that: Callable[[str], ImapServer], own_nats: NatsServer, mailbus: Maker, prefix: str, habit: str
) -> None:
    server = server_that(habit)
    await make(server, prefix, "One", "Two")
    mine = imap_account(server, prefix, mailboxes=["*"], exclude=["Sent", "Trash"], initial="new", poll="1s")
    one = mailbus(settings_for(own_nats.url, prefix, mine))
    one.start()
    await one.started()
    await heard(one, "INBOX", "One", "Two")
    async with reading(own_nats.url, prefix) as reader:
        for swap in range(4):
            if swap:
                pairs = [("One", "Third"), ("Two", "One"), ("Third", "Two")]
                assert await one.stop() == 0
                await asyncio.to_thread(rename, server, prefix, *pairs)
            await deliver(server, prefix, ["One", "Two"], first=10 * swap + 1)
            if swap:
                one.start()
            for number in (1, 2):
                await received(reader, f"mail {10 * swap + number}")
        told = Counter(event.body["subject"] for event in await reader.received())
        await settled(reader)
    assert told == Counter(f"mail {10 * swap + number}" for swap in range(4) for number in (1, 2))
    assert await one.stop() == 0


@pytest.mark.fault("A18")
async def test_one_that_was_renamed_while_mailbus_ran_is_known_when_it_swaps_its_name_later(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    mine = imap_account(dovecot, prefix, mailboxes=["*"], exclude=["Sent", "Trash"], initial="new", poll="1s")
    one = mailbus(settings_for(own_nats.url, prefix, mine))
    async with reading(own_nats.url, prefix) as reader:
        await make(dovecot, prefix, "Two")
        await begun(one, reader, dovecot)
        await deliver(dovecot, prefix, ["Two"], first=12)
        await received(reader, "mail 12")
        await asyncio.to_thread(rename, dovecot, prefix, ("Old", "New"))
        await deliver(dovecot, prefix, ["New"], first=13)
        await received(reader, "mail 13")
        for first in (21, 31):
            await asyncio.to_thread(rename, dovecot, prefix, ("New", "Third"), ("Two", "New"), ("Third", "Two"))
            await deliver(dovecot, prefix, ["New", "Two"], first=first)
            for number in (first, first + 1):
                await received(reader, f"mail {number}")
            # Each goes on under the name that it has now.
            await deliver(dovecot, prefix, ["New", "Two"], first=first + 2)
            for number in (first + 2, first + 3):
                await received(reader, f"mail {number}")
        told = Counter(event.body["subject"] for event in await reader.received())
        found = by_mailbox(await reader.events())
    assert told == Counter(f"mail {number}" for number in (11, 12, 13, *range(21, 25), *range(31, 35)))
    resets = {name: [event.body["reason"] for event in some if event.kind == "reset"] for name, some in found.items()}
    assert (resets["New"], resets["Two"]) == (["renamed"] * 3, ["start", "renamed", "renamed"])
    assert await one.stop() == 0


async def settled(reader: BusReader, *, gone: str = "") -> None:
    """Until nobody needs what was known in the epochs that are left: it goes with the next ones.

    `gone`: a mailbox that is not there any more, and so does not say that it is done: that is kept for a while.
    """
    bucket = await reader.nc.jetstream().key_value(f"{reader.prefix}-cursors")
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        left = json.loads((await bucket.get("box.left")).value or b"[]")
        open = [one for one in left if not one.get("settled") or one.get("takers")]
        if left and all(not one["mailbox"] and one.get("takers") == [name_id(gone)] for one in open):
            return
        assert asyncio.get_running_loop().time() < deadline, left
        await asyncio.sleep(0.1)


async def received(reader: BusReader, subject: str) -> None:
    """Until a mail is announced."""
    deadline = asyncio.get_running_loop().time() + 30
    while subject not in {event.body["subject"] for event in await reader.received()}:
        assert asyncio.get_running_loop().time() < deadline, subject
        await asyncio.sleep(0.1)
