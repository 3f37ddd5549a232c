"""Rounds over mailboxes at rest on servers as old as they come, and NOTIFY where there is one: scripted and real."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.contract import mailbox_token
from tests.ingest.view import View, act, mail
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection
from tests.servers.imap_stub_crowd import NOTIFYING, Crowd
from tests.servers.mailbus import BusReader, Event, Mailbus, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer
from tests.whole.test_boxes import Proxies, by_mailbox, deliver, heard, looked, make, once_each

Maker = Callable[..., Mailbus]


def account(crowd: Crowd, **incoming: Any) -> dict[str, Any]:
    """An account on the scripted server, over two connections for reading."""
    imap = {"host": "127.0.0.1", "port": crowd.port, "security": "none", "reply": "5s", "connections": 3}
    return {
        "id": "box",
        "address": "me@example.com",
        "password": "secret",
        "incoming": {"imap": imap, "initial": "all"} | incoming,
    }


def subjects(events: list[Event]) -> dict[str, list[str]]:
    """By the mailbox's token, of what was received."""
    found = by_mailbox([event for event in events if event.kind == "received"])
    return {name: [event.body["subject"] for event in some] for name, some in found.items()}


def said(crowd: Crowd, name: str) -> list[str]:
    """The commands of this name that were said."""
    return [line for line in crowd.commands if line.split()[1] == name]


@pytest.mark.fault("A18")
async def test_a_server_with_nothing_but_idle_is_asked_by_status_and_knows_roles_by_their_usual_names(
    crowd: Crowd, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    names = [f"Lists/{n}" for n in range(4)]
    crowd.make("Lists", "\\Noselect")
    for name in [*names, "Deleted Items", "Going"]:
        crowd.make(name)
    one = mailbus(settings_for(own_nats.url, prefix, account(crowd, mailboxes=["\\Trash", "*"], poll="1s")))
    one.start()
    await one.started()
    followed = ["Deleted Items", "INBOX", "Going", *names]
    async with reading(own_nats.url, prefix) as reader:
        await heard(one, *followed)
        for number, name in enumerate([*followed, "Lists/2"]):
            await crowd.put(name, mail(number))
        await reader.wait_received(8)
        del crowd.boxes["Going"]
        await looked(one, "Going")
        crowd.make("Born")
        await crowd.put("Born", mail(20))
        crowd.boxes["New"] = crowd.boxes.pop("Lists/3")
        await crowd.put("New", mail(21))
        await reader.wait_received(11)
        events = await reader.events()
    wanted = {mailbox_token(name): [f"mail {number}"] for number, name in enumerate(followed)}
    wanted[mailbox_token("Lists/2")].append("mail 7")
    # `initial: all` announces what was renamed under its new id, and says which it was.
    assert subjects(events) == wanted | {"Born": ["mail 20"], "New": ["mail 6", "mail 21"]}
    (again, _) = [event.body for event in by_mailbox(events)["New"] if event.kind == "received"]
    assert again["mailbus"]["previousId"].startswith("i")
    resets = [event.body for event in by_mailbox(events)["New"] if event.kind == "reset"]
    assert [(reset["reason"], reset.get("oldMailbox")) for reset in resets] == [("renamed", "Lists/3")]
    assert said(crowd, "STATUS")
    assert not any("RETURN" in line for line in said(crowd, "LIST"))
    assert crowd.most <= 2
    assert await one.stop() == 0


async def hears(one: Mailbus, times: int = 1) -> None:
    """Until a connection hears of all mailboxes, so many times."""
    await until(lambda: len(one.said("notify_on")) >= times, what="NOTIFY")


def notifying(crowd: Crowd, count: int = 4) -> list[str]:
    """Mailboxes on a server with NOTIFY."""
    crowd.capabilities = NOTIFYING
    names = [f"Lists/{n}" for n in range(count)]
    for name in names:
        crowd.make(name)
    return ["INBOX", *names]


@pytest.mark.parametrize("poll", ["1h", "1s"])
async def test_what_notify_tells_is_announced_and_an_overflow_is_looked_after_by_rounds(
    crowd: Crowd, own_nats: NatsServer, mailbus: Maker, prefix: str, poll: str
) -> None:
    names = notifying(crowd)
    one = mailbus(settings_for(own_nats.url, prefix, account(crowd, mailboxes=["*"], poll=poll)))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await heard(one, *names)
        await hears(one)
        rounds = len(said(crowd, "LIST"))
        for number, name in enumerate(names):
            await crowd.put(name, mail(number))
        await reader.wait_received(5)
        for name in names[1:]:  # what is told twice is told once
            await crowd.news(f'* STATUS "{name}" ({crowd.boxes[name].status})')
        # At the most one more, where the connection that heard was not needed any more and another one hears.
        assert len(said(crowd, "LIST")) <= rounds + 1 or poll == "1s"
        asked = len(said(crowd, "NOTIFY"))
        # It says that it could not keep up: what it did not tell is found, and rounds go on.
        for number, name in enumerate(names, 10):
            await crowd.put(name, mail(number), tell=False)
        await crowd.news("* OK [NOTIFICATIONOVERFLOW] too much")
        await reader.wait_received(10)
        # Where INBOX idles it is heard of again.
        await until(lambda: not [one for one in crowd.muted if one in crowd.connections], what="NOTIFY for one mailbox")
        await crowd.put("INBOX", mail(20), tell=False)
        await reader.wait_received(11)
        if poll == "1s":
            await crowd.put(names[1], mail(21), tell=False)
            await reader.wait_received(12)
        events = await reader.events()
    assert one.said("notify_overflow")
    found = subjects(events)
    more = ["mail 21"] if poll == "1s" else []
    assert found[mailbox_token(names[1])] == ["mail 1", "mail 11", *more]
    assert sum(map(len, found.values())) == 11 + len(more)
    assert len(said(crowd, "NOTIFY")) <= asked + 2
    assert crowd.most <= 2
    assert await one.stop() == 0


async def test_a_lost_connection_that_heard_is_looked_after_at_once_and_another_hears(
    crowd: Crowd, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    names = notifying(crowd)
    one = mailbus(settings_for(own_nats.url, prefix, account(crowd, mailboxes=["*"], poll="1h")))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await heard(one, *names)
        await hears(one)
        for number, name in enumerate(names):
            await crowd.put(name, mail(number), tell=False)
        for connection in list(crowd.listening):
            connection.cut()
        crowd.listening.clear()
        await reader.wait_received(5)
        await hears(one, 2)
        for number, name in enumerate(names, 10):
            await crowd.put(name, mail(number))
        events = await reader.wait_received(10)
    assert sum(map(len, subjects(events).values())) == 10
    assert await one.stop() == 0


@pytest.mark.fault("A01")
async def test_a_connection_that_heard_and_died_in_silence_is_noticed_as_any_that_idles(
    crowd: Crowd, own_nats: NatsServer, mailbus: Maker, prefix: str, fault_proxy: Proxies
) -> None:
    names = notifying(crowd)
    proxy = await fault_proxy("127.0.0.1", crowd.port)
    mine = account(crowd, mailboxes=["*"], poll="1h")
    mine["incoming"]["imap"] |= {"port": proxy.port, "idle": "1s", "reply": "2s"}
    one = mailbus(settings_for(own_nats.url, prefix, mine))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await heard(one, *names)
        await hears(one)
        proxy.lose()
        for number, name in enumerate(names):
            await crowd.put(name, mail(number))
        await reader.wait_received(5)
        await hears(one, 2)
        for number, name in enumerate(names, 10):
            await crowd.put(name, mail(number))
        events = await reader.wait_received(10)
    assert sum(map(len, subjects(events).values())) == 10
    assert await one.stop() == 0


@pytest.mark.parametrize("answer", ["NO [NOTIFICATIONOVERFLOW] too many", "BAD what is that?"])
async def test_notify_that_is_offered_and_refused_is_done_without(
    crowd: Crowd, own_nats: NatsServer, mailbus: Maker, prefix: str, answer: str
) -> None:
    names = notifying(crowd)

    async def refuse(connection: Connection, tag: str, _: str) -> bool:
        await connection.send(f"{tag} {answer}\r\n")
        return True

    crowd.hooks["NOTIFY"] = refuse
    one = mailbus(settings_for(own_nats.url, prefix, account(crowd, mailboxes=["*"], poll="1s")))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await heard(one, *names)
        await until(lambda: bool(one.said("feature_refused")))
        for number, name in enumerate(names):
            await crowd.put(name, mail(number))
        await reader.wait_received(5)
    assert await one.stop() == 0


async def test_renamed_twice_before_anybody_looks_is_one_renaming(
    crowd: Crowd, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    notifying(crowd, 1)
    await crowd.put("Lists/0", mail(1), tell=False)
    one = mailbus(settings_for(own_nats.url, prefix, account(crowd, mailboxes=["*"], poll="1h")))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await heard(one, "INBOX", "Lists/0")
        await hears(one)
        # Numbered anew with its name: nothing but OLDNAME tells what it was.
        crowd.make("New").messages = crowd.boxes.pop("Lists/0").messages
        await crowd.news('* LIST () "/" Between ("OLDNAME" ("Lists/0"))\r\n* LIST () "/" New ("OLDNAME" (Between))')
        await crowd.put("New", mail(2))
        await reader.wait_received(3)
        events = by_mailbox(await reader.events())["New"]
    assert [event.body.get("subject") for event in events] == [None, "mail 1", "mail 2"]
    assert (events[0].body["reason"], events[0].body["oldMailbox"]) == ("renamed", "Lists/0")
    assert events[1].body["mailbus"]["previousId"].startswith("i")
    assert await one.stop() == 0


async def counted(dovecot: Dovecot, reader: BusReader, mailbox: str, **wanted: int) -> None:
    """Until a mailbox has so many events of these kinds.

    Dovecot 2.3 keeps some notices until the next one: meanwhile something happens where nobody looks.
    """
    token = mailbox_token(mailbox)
    for kind, count in wanted.items():
        deadline = asyncio.get_running_loop().time() + 30
        while await reader.count(f"{reader.prefix}.in.*.{token}.{kind}") < count:
            assert asyncio.get_running_loop().time() < deadline, f"{mailbox}: no {kind}"
            await asyncio.sleep(0.5)
            await deliver(dovecot, reader.prefix, ["Other"])


async def test_dovecot_tells_of_all_mailboxes_on_one_connection(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    names = [f"Lists/{n}" for n in range(6)]
    await make(dovecot, prefix, "Lists", *names, "Old", "Other")
    await deliver(dovecot, prefix, [*names, "Old"])
    # Without news nothing would be looked at for an hour.
    mine = imap_account(dovecot, prefix, mailboxes=["INBOX", "Lists/*", "Ol*", "New*"], exclude=["Lists/5"], poll="1h")
    one = mailbus(settings_for(own_nats.url, prefix, mine))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(6)
        await heard(one, "INBOX", *names[:5], "Old")
        await hears(one)
        await deliver(dovecot, prefix, ["INBOX", *names], first=10)
        for name in names[:5]:
            await counted(dovecot, reader, name, received=2)
        await act(dovecot, prefix, ("STORE", "1", "+FLAGS", r"(\Flagged)"), mailbox="Lists/1")
        await counted(dovecot, reader, "Lists/1", changed=1)
        await act(dovecot, prefix, ("STORE", "1", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",), mailbox="Lists/2")
        await counted(dovecot, reader, "Lists/2", removed=1)
        await make(dovecot, prefix, "Newborn")
        await deliver(dovecot, prefix, ["Newborn"], first=30)
        await counted(dovecot, reader, "Newborn", received=1)

        def rename() -> None:
            with dovecot.client(prefix) as client:
                client.rename("Old", "New-name")

        await asyncio.to_thread(rename)
        await deliver(dovecot, prefix, ["New-name"], first=40)
        await counted(dovecot, reader, "New-name", reset=1, received=1)
        views = await once_each(reader)
        events = by_mailbox(await reader.events())
    (reset,) = [event.body for event in events[mailbox_token("New-name")] if event.kind == "reset"]
    assert (reset["reason"], reset["oldMailbox"]) == ("renamed", "Old")
    assert views[mailbox_token("Lists/1")].messages == {1: {"$flagged"}, 2: set()}
    assert views[mailbox_token("Lists/2")].messages == {2: set()}
    assert isinstance(views["INBOX"], View)
    assert await one.stop() == 0
