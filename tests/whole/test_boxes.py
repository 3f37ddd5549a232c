"""Many mailboxes of one account over few connections: patterns, roles, mail wherever it arrives, once."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
import pytest

from service.contract import mailbox_id, mailbox_token
from tests.ingest.view import View, act, mail
from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import ImapServer
from tests.servers.mailbus import BusReader, Event, Mailbus, command, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy
from tests.whole.test_commands import cmd

Maker = Callable[..., Mailbus]
Proxies = Callable[[str, int], Awaitable[FaultProxy]]


async def make(server: ImapServer, user: str, *names: str) -> None:
    """New mailboxes."""

    def run() -> None:
        with server.client(user) as client:
            for name in names:
                client.create(name)

    await asyncio.to_thread(run)


async def deliver(server: ImapServer, user: str, mailboxes: Sequence[str], first: int = 1) -> None:
    """A mail into each, numbered from `first` on."""

    def run() -> None:
        with server.client(user) as client:
            for number, mailbox in enumerate(mailboxes, first):
                client.append(mailbox, "", "", mail(number))

    await asyncio.to_thread(run)


def by_mailbox(events: Sequence[Event]) -> dict[str, list[Event]]:
    """Events by the mailbox's token."""
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.subject.split(".")[3], []).append(event)
    return found


async def heard(one: Mailbus, *names: str) -> None:
    """Until these mailboxes were looked at once."""
    await until(
        lambda: {line["mailbox"] for line in one.said("epoch_begins")} >= set(names),
        what=f"{names}",
    )


async def counted(reader: BusReader, **wanted: int) -> None:
    """Until there are so many events of these kinds."""
    deadline = asyncio.get_running_loop().time() + 20
    while True:
        counts = Counter(event.kind for event in await reader.events())
        if all(counts[kind] >= count for kind, count in wanted.items()):
            return
        assert asyncio.get_running_loop().time() < deadline, counts
        await asyncio.sleep(0.1)


async def once_each(reader: BusReader) -> dict[str, View]:
    """What events say of each mailbox; fails where something is told twice."""
    return {name: View().read(events) for name, events in by_mailbox(await reader.events()).items()}


@pytest.mark.fault("A19")
@pytest.mark.parametrize("habit", ["qresync", "snapshot", "cyrus"])
async def test_mail_flags_and_removals_in_mailboxes_at_rest_are_told_once_over_three_connections(
    server_that: Callable[[str], ImapServer],
    own_nats: NatsServer,
    mailbus: Maker,
    prefix: str,
    fault_proxy: Proxies,
    habit: str,
) -> None:
    server = server_that(habit)
    names = [f"Lists/{n}" for n in range(10)]
    await make(server, prefix, "Lists", *names, "Other")
    await deliver(server, prefix, names)
    proxy = await fault_proxy(server.host, server.imap)
    account = imap_account(server, prefix, port=proxy.port)
    account["incoming"] |= {"mailboxes": ["INBOX", "Lists/*"], "exclude": ["Lists/9"], "poll": "1s"}
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    followed = ["INBOX", *names[:9]]
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(9)
        await heard(one, *followed)
        await deliver(server, prefix, [*followed, "Lists/9", "Other"], first=101)
        await reader.wait_received(19)
        await act(server, prefix, ("STORE", "1", "+FLAGS", r"(\Seen)"), mailbox="Lists/3")
        await act(server, prefix, ("MOVE", "1", "Other"), mailbox="Lists/4")

        await counted(reader, changed=1, removed=1)
        # At rest or not, what is asked for is compared; nothing is told twice.
        answer = await cmd(one, "resync", {})
        assert (answer["announced"], len(answer["list"])) == (0, 10)
        views = await once_each(reader)
    assert views.keys() == {mailbox_token(name) for name in followed}
    assert views[mailbox_token("Lists/3")].messages == {1: {"$seen"}, 2: set()}
    assert views[mailbox_token("Lists/4")].messages == {2: set()}
    assert all(len(views[mailbox_token(name)].messages) == 2 for name in names[5:9])
    assert proxy.open_most <= 3
    assert await one.stop() == 0


@pytest.mark.fault("A18")
async def test_roles_and_names_of_any_kind_are_followed_each_under_its_token(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    wire = {"R&D-team": "R&-D-team", "a * b": '"a * b"', "Entwürfe & %": '"Entw&APw-rfe &- %"'}
    await make(dovecot, prefix, *wire.values(), "Papierkorb", "Sub")
    await deliver(dovecot, prefix, [*wire.values(), "Papierkorb"])
    account = imap_account(dovecot, prefix)
    account["incoming"] |= {
        "mailboxes": ["\\Trash", {"name": "a * b"}, "%"],
        "exclude": ["INBOX", "Sub"],
        "roles": {"trash": "Papierkorb"},
    }
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        events = await reader.wait_received(4)
        told = {event.subject.split(".")[3]: event.body["mailboxIds"] for event in events}
        assert told == {mailbox_token(name): {mailbox_id(name): True} for name in [*wire, "Papierkorb"]}
        code, out, _ = await command(one, "check")
        assert code == 0, out
        assert "Papierkorb (1 messages), a * b (1 messages)" in out
    assert await one.stop() == 0


@pytest.mark.fault("A18")
@pytest.mark.parametrize("habit", ["qresync", "cyrus"])
async def test_a_name_that_some_client_wrote_in_another_normal_form_is_the_same_name(
    server_that: Callable[[str], ImapServer], own_nats: NatsServer, mailbus: Maker, prefix: str, habit: str
) -> None:
    server = server_that(habit)
    # "Entwürfe", its umlaut as two characters; of "Büro" there are both.
    await make(server, prefix, "Entwu&Awg-rfe", "Bu&Awg-ro", "B&APw-ro", "Kept")
    await deliver(server, prefix, ["Entwu&Awg-rfe", "B&APw-ro"])
    account = imap_account(server, prefix, mailboxes=["*"], exclude=["Sent", "Trash", "Kept"], poll="1s")
    account["incoming"] |= {"after": {"move": "Kept"}, "after_delay": "1s"}
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        told = await reader.wait_received(2)
        assert {event.subject.split(".")[3] for event in told} == {"Entwürfe", "Büro"}
        (id,) = [event.body["id"] for event in told if "Entw" in event.subject]
        assert (await cmd(one, "get", {"ids": [id], "properties": ["subject"]}))["list"][0]["subject"] == "mail 1"
        await deliver(server, prefix, ["Entwu&Awg-rfe"], first=3)
        await reader.wait_received(3)
        # What is done after an event finds it too.
        await counted(reader, removed=3)
    assert await one.stop() == 0


async def test_a_mailbox_that_is_named_in_full_is_opened_in_whichever_normal_form_the_server_has_it(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    await make(dovecot, prefix, "Entwu&Awg-rfe", "Gea&Awg-ndert")
    await deliver(dovecot, prefix, ["Entwu&Awg-rfe"])
    # Written once as the keyboard has it and once as a file system may; nobody lists anything.
    account = imap_account(dovecot, prefix, mailboxes=["Entw\u00fcrfe", "INBOX"])
    account["incoming"] |= {"after": {"move": "Gea\u0308ndert"}, "after_delay": "1s"}
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        (told,) = await reader.wait_received(1)
        assert told.subject.split(".")[3] == "Entw\u00fcrfe"
        await counted(reader, removed=1)
    assert await one.stop() == 0


async def test_a_role_that_no_mailbox_has_is_said_and_the_others_are_followed(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    await deliver(dovecot, prefix, ["INBOX"])
    account = imap_account(dovecot, prefix, mailboxes=["INBOX", "\\Junk"])
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
        (said,) = [one.body for one in await reader.account_events("degraded") if one.kind == "degraded"]
    assert (said["part"], said["detail"]) == ("mailboxes", "the server has no mailbox for \\Junk")
    code, out, _ = await command(one, "check")
    assert code == 1
    assert "write its name in `roles`" in out
    assert await one.stop() == 0


async def test_a_mailbox_that_is_named_beside_a_pattern_and_not_there_is_said_with_what_to_do(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    await deliver(dovecot, prefix, ["INBOX"])
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix, mailboxes=["INB*", "Missing"])))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
        said = [one for one in await reader.account_events("degraded") if one.body.get("mailbox") == "Missing"]
    assert [one.kind for one in said] == ["degraded"], said
    assert "check its name in `mailboxes`" in said[0].body["remedy"]
    assert await one.stop() == 0


async def looked(one: Mailbus, name: str) -> None:
    """Until a mailbox that was there is ended, and said so."""
    await until(lambda: any(line["mailbox"] == name for line in one.said("mailbox_gone")), what=name)


@pytest.mark.fault("A18")
@pytest.mark.parametrize("habit", ["qresync", "cyrus"])
async def test_mailboxes_appear_vanish_and_are_renamed_while_it_runs_and_no_mail_is_told_twice(
    server_that: Callable[[str], ImapServer], own_nats: NatsServer, mailbus: Maker, prefix: str, habit: str
) -> None:
    server = server_that(habit)
    await make(server, prefix, "Old", "Going")
    await deliver(server, prefix, ["Old", "Old", "Going"])
    account = imap_account(server, prefix, mailboxes=["*"], exclude=["Sent", "Trash"], initial="new", poll="1s")
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await heard(one, "INBOX", "Old", "Going")
        await deliver(server, prefix, ["Old", "Old"], first=11)
        await reader.wait_received(2)

        def change() -> None:
            with server.client(prefix) as client:
                client.create("Born")
                client.append("Born", "", "", mail(21))
                client.rename("Old", "New/er")
                client.append("New/er", "", "", mail(22))

        def delete() -> None:
            with server.client(prefix) as client:
                client.delete("Going")

        await asyncio.to_thread(change)
        await reader.wait_received(4)
        await asyncio.to_thread(delete)
        await looked(one, "Going")
        await deliver(server, prefix, ["Born", "New/er"], first=31)
        await reader.wait_received(6)
        # Stopped and started it goes on from where each of them was.
        assert await one.stop() == 0
        await deliver(server, prefix, ["Born", "New/er"], first=41)
        one.start()
        await one.started()
        await reader.wait_received(8)
        found = by_mailbox(await reader.events())
        subjects = {name: [event.body.get("subject") for event in events] for name, events in found.items()}
    subjects.pop("New", None)  # Cyrus makes what is above
    assert subjects == {
        "INBOX": [None],
        "Going": [None],
        "Old": [None, "mail 11", "mail 12"],
        "Born": [None, "mail 21", "mail 31", "mail 41"],
        "New/er": [None, "mail 22", "mail 32", "mail 42"],
    }
    reset = found["New/er"][0].body
    assert (reset["reason"], reset["oldMailbox"]) == ("renamed", "Old")
    assert await one.stop() == 0


@pytest.mark.fault("G12")
async def test_hundreds_of_mailboxes_take_turns_on_two_connections_and_metrics_name_none_of_them(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, fault_proxy: Proxies
) -> None:
    names = [f"crowd/{n:04}" for n in range(250)]
    await make(dovecot, prefix, "crowd", *names)
    proxy = await fault_proxy(dovecot.host, dovecot.imap)
    account = imap_account(dovecot, prefix, port=proxy.port, mailboxes=["INBOX", "crowd/%"], poll="1s")
    one = mailbus(settings_for(own_nats.url, prefix, account, log={"level": "info", "format": "json"}))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        # Said before it is committed: what counts is the log.
        await until(lambda: len(one.said("epoch_begins")) == 251, limit_s=90)
        async with asyncio.timeout(30):
            while await reader.count(f"{prefix}.in.*.*.reset") < 251:  # noqa: ASYNC110 a log rings no bell
                await asyncio.sleep(0.05)
        await deliver(dovecot, prefix, ["INBOX", *names[::25]])
        events = await reader.wait_received(11)
        assert Counter(event.subject.split(".")[3] for event in events) == Counter(
            map(mailbox_token, ["INBOX", *names[::25]])
        )
        assert Counter(event.kind for event in await reader.events()) == {"reset": 251, "received": 11}
    assert proxy.open_most <= 2  # nobody commanded anything
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{one.port}/metrics") as response:
        assert "crowd" not in await response.text()
    assert await one.stop() == 0
