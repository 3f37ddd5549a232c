"""A maildrop becomes events, each once, and goes on where it stopped: scripted server, and real Dovecot."""

import asyncio
from datetime import datetime, timedelta

import pytest

from service.bus import Bus
from service.contract import AccountState, email_id
from service.ingest import reading
from service.ingest.numbers import Numbers
from service.ingest.pages import Page
from service.ingest.reading import SINGLE_TRIES, Reader
from service.ingest.surveyed import Surveyed
from service.pop3 import session
from tests.ingest.maildrop import LONG_AGO, NOW, Drop, body, caught_up, following, kinds, mail, run, subjects
from tests.ingest.view import seen
from tests.pop3.harness import answering, cutting
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import BusReader, until
from tests.servers.pop3_stub import Mail, Pop3Connection, Pop3Stub


async def test_mail_is_announced_once_in_its_order_and_what_leaves_is_removed(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(2)
        pop3_stub.mails.append(mail(3))
        await reader.wait_received(3)
        del pop3_stub.mails[0]
        await until(lambda: not pop3_stub.connections)
        await caught_up(drop)
        await caught_up(drop)
    assert await run(bus, pop3_stub)
    events = await reader.events()
    assert kinds(events) == ["reset", "received", "received", "received", "removed"]
    assert subjects(events) == ["mail 1", "mail 2", "mail 3"]
    epoch = events[0].body["uidvalidity"]
    assert [event.body["id"] for event in events[1:]] == [email_id("INBOX", epoch, uid) for uid in (1, 2, 3, 1)]
    received = events[1].body
    assert datetime.fromisoformat(received["receivedAt"]) == NOW.replace(microsecond=0)
    assert received["size"] == len(body(1))
    assert not drop.alarms


async def test_the_maildrop_is_free_between_looks(pop3_stub: Pop3Stub, bus: Bus, reader: BusReader) -> None:
    pop3_stub.mails = [mail(1)]
    async with following(bus, Drop(pop3_stub.port, poll_s=30.0)) as drop:
        await caught_up(drop)
        await until(lambda: not pop3_stub.connections)
    assert pop3_stub.commands[-1] == "QUIT"


async def test_of_mail_that_was_there_nothing_is_announced_where_only_new_mail_is_wanted(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(n, LONG_AGO) for n in range(1, 4)]
    await run(bus, pop3_stub, initial="new")
    pop3_stub.mails.append(mail(4))
    pop3_stub.mails.pop(0)
    await run(bus, pop3_stub, initial="new")
    pop3_stub.mails.append(mail(5))
    await run(bus, pop3_stub, initial="new")
    events = await reader.events()
    assert kinds(events) == ["reset", "received", "received"]
    assert subjects(events) == ["mail 4", "mail 5"]


async def test_since_a_moment_is_read_from_the_received_fields(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1, LONG_AGO), mail(2, LONG_AGO), mail(3, NOW - timedelta(days=1)), mail(4)]
    await run(bus, pop3_stub, initial=NOW - timedelta(days=2))
    assert subjects(await reader.events()) == ["mail 3", "mail 4"]


async def test_without_top_since_a_moment_is_read_from_whole_mails(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.hooks["TOP"] = answering("-ERR what?\r\n")
    pop3_stub.mails = [mail(1, LONG_AGO), mail(2, LONG_AGO), mail(3, NOW - timedelta(days=1)), mail(4)]
    await run(bus, pop3_stub, initial=NOW - timedelta(days=2))
    assert subjects(await reader.events()) == ["mail 3", "mail 4"]


# -- a server that is locked, slow, or lost ---------------------------------------------------------------------


@pytest.mark.fault("B02")
async def test_a_maildrop_that_is_locked_is_waited_for_and_nobody_is_alarmed(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1)]
    tries = 0

    async def auth(connection: Pop3Connection, arguments: str) -> bool:
        nonlocal tries
        tries += 1
        if tries in {1, 2, 4}:
            await connection.send("-ERR [IN-USE] locked\r\n" if tries < 4 else "-ERR [LOGIN-DELAY] too early\r\n")
            return True
        return False

    pop3_stub.hooks["AUTH"] = auth
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(1)
        await until(lambda: tries > 4)
        await caught_up(drop)
    assert not drop.states
    assert not drop.alarms


@pytest.mark.fault("B02")
async def test_no_login_comes_earlier_than_the_server_wants(pop3_stub: Pop3Stub, bus: Bus, reader: BusReader) -> None:
    pop3_stub.capabilities += " LOGIN-DELAY(100000)"
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await caught_up(drop)
        pop3_stub.commands.clear()
        await asyncio.sleep(0.3)  # some looks, if it looked
        assert "CAPA" not in pop3_stub.commands


@pytest.mark.fault("B02")
@pytest.mark.parametrize(
    ("reply", "state"),
    [
        ("-ERR [SYS/TEMP] later", AccountState.DISCONNECTED),
        ("-ERR [SYS/PERM] broken", AccountState.DEGRADED),
        ("-ERR [AUTH] no", AccountState.AUTH_FAILED),
        ("-ERR", AccountState.DISCONNECTED),
    ],
)
async def test_other_refusals_are_a_state_of_the_account(
    pop3_stub: Pop3Stub, bus: Bus, reply: str, state: AccountState
) -> None:
    pop3_stub.hooks["AUTH"] = answering(f"{reply}\r\n")
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await until(lambda: bool(drop.states))
    assert drop.states[0][0] is state


async def test_cut_anywhere_each_mail_is_announced_once(pop3_stub: Pop3Stub, bus: Bus, reader: BusReader) -> None:
    pop3_stub.mails = [mail(n) for n in range(1, 7)]
    cuts = {"RETR 3", "RETR 5", "LIST", "UIDL"}

    def once() -> bool:
        line = pop3_stub.commands[-1]
        if line in cuts:
            cuts.discard(line)
            return True
        return False

    for name in ("RETR", "LIST", "UIDL"):
        pop3_stub.hooks[name] = cutting(once)
    async with following(bus, Drop(pop3_stub.port)):
        await reader.wait_received(6)
    assert not cuts
    events = await reader.events()
    assert subjects(events) == [f"mail {n}" for n in range(1, 7)]


async def test_a_session_that_ended_while_nothing_was_read_is_no_messages_fault(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SILENT_S", 0.0)
    pop3_stub.mails = [mail(n) for n in range(1, 4)]
    cuts = 4

    def again() -> bool:
        nonlocal cuts
        cuts -= 1
        return cuts >= 0

    pop3_stub.hooks["NOOP"] = cutting(again)
    drop = await run(bus, pop3_stub)
    assert subjects(await reader.events()) == ["mail 1", "mail 2", "mail 3"]
    assert cuts < 4
    assert not drop.status.suspects
    assert not drop.states


@pytest.mark.fault("B06")
async def test_what_is_too_large_is_announced_by_its_header(pop3_stub: Pop3Stub, bus: Bus, reader: BusReader) -> None:
    pop3_stub.mails = [mail(1), Mail("large", b"Subject: large\r\n\r\n" + b"x" * 50_000 + b"\r\n"), mail(2)]
    await run(bus, pop3_stub, message_limit=10_000)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "large", "mail 2"]
    assert events[2].body["mailbus"]["problem"]["type"] == "too-large"
    assert "RETR 2" not in pop3_stub.commands


@pytest.mark.fault("B06")
async def test_a_message_far_larger_than_its_listed_size_costs_no_memory_and_no_other_mail(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2), mail(3)]
    sent = 0

    async def endless(connection: Pop3Connection, arguments: str) -> bool:
        nonlocal sent
        if arguments != "2":
            return False
        await connection.send("+OK\r\n")
        for _ in range(1000):
            await connection.send(b"x" * 100_000 + b"\r\n")
            sent += 1
        return True

    pop3_stub.hooks["RETR"] = endless
    async with following(bus, Drop(pop3_stub.port, message_limit=10_000)):
        await reader.wait_received(3, limit_s=30)
    events = await reader.received()
    assert [event.body.get("subject") for event in events] == ["mail 1", None, "mail 3"]
    assert events[1].body["mailbus"]["problem"]["type"] == "unavailable"
    assert sent < 500


@pytest.mark.fault("B06")
async def test_however_sizes_lie_no_page_holds_much_more_than_one_may(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PAGE_LIMIT_BYTES", 100_000)
    sizes = [30_000, 200, 90_000, 200, 150_000, 40_000, 40_000, 40_000, 200, 200]
    pop3_stub.mails = [
        Mail(str(n), b"Subject: mail %d\r\n\r\n%b\r\n" % (n, b"x" * size)) for n, size in enumerate(sizes)
    ]
    # The last two are said to be too large: of them headers are asked for.
    listed = [10] * 8 + [10**15] * 2
    pop3_stub.hooks["LIST"] = answering(
        "".join(["+OK\r\n", *(f"{n} {size}\r\n" for n, size in enumerate(listed, 1)), ".\r\n"])
    )
    held: list[int] = []
    read = Reader.read

    async def spy(self: Reader, wanted: list[Surveyed], numbers: Numbers) -> Page:
        page = await read(self, wanted, numbers)
        held.append(sum(len(message.body) for message in page.fetched))
        return page

    monkeypatch.setattr(Reader, "read", spy)
    drop = await run(bus, pop3_stub)
    assert subjects(await reader.events()) == [f"mail {n}" for n in range(10)]
    assert len(held) > 4
    assert sorted(held)[-2] <= 101_000
    assert not drop.states


@pytest.mark.fault("B06")
async def test_what_has_no_room_behind_later_mails_is_read_alone(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PAGE_LIMIT_BYTES", 100_000)
    header = b"Subject: mail 1\r\nX: %b\r\n\r\n" % (b"x" * 50_000)
    pop3_stub.mails = [Mail("1", header), Mail("2", b"Subject: mail 2\r\n\r\n%b\r\n" % (b"x" * 90_000))]
    # The first is said to be too large; of the others bodies are asked for before its header.
    pop3_stub.hooks["LIST"] = answering(f"+OK\r\n1 {10**15}\r\n2 10\r\n.\r\n")
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(2)
        await caught_up(drop)
    assert subjects(await reader.events()) == ["mail 1", "mail 2"]
    assert "far larger than it says" in str(drop.states[0][1])
    assert not drop.status.suspects


async def test_a_message_that_the_server_refuses_is_gone_or_said_to_be_unavailable(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2), mail(3)]

    async def retr(connection: Pop3Connection, arguments: str) -> bool:
        # Of the three, one is deleted by somebody else at this moment, one cannot be had at all.
        assert connection.drop is not None
        uidl = connection.drop[int(arguments) - 1].uidl
        if uidl == "uidl-3":
            return False
        pop3_stub.mails = [one for one in pop3_stub.mails if one.uidl != "uidl-1"]
        await connection.send("-ERR no\r\n")
        return True

    pop3_stub.hooks["RETR"] = retr
    drop = await run(bus, pop3_stub)
    events = await reader.received()
    assert [event.body.get("subject") for event in events] == [None, "mail 3"]
    assert events[0].body["mailbus"]["problem"]["type"] == "unavailable"
    assert not drop.states


async def test_a_mail_that_is_gone_before_it_is_read_gives_its_number_to_no_other(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    cuts = 0

    def again() -> bool:
        nonlocal cuts
        cuts += 1
        # Another client takes it away, and another mail comes.
        if cuts == SINGLE_TRIES + 1:
            pop3_stub.mails = [mail(2)]
        return cuts <= SINGLE_TRIES + 1

    pop3_stub.hooks["RETR"] = cutting(again)
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await caught_up(drop)
        pop3_stub.mails = [mail(1)]
        await reader.wait_received(1)
    events = await reader.received()
    assert [event.body.get("subject") for event in events] == ["mail 2"]


async def test_a_mail_that_is_not_shown_when_it_is_to_be_read_is_announced_when_it_shows_again(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    async def retr(connection: Pop3Connection, arguments: str) -> bool:
        assert connection.drop is not None
        if connection.drop[int(arguments) - 1].uidl != "uidl-1":
            return False
        pop3_stub.mails = [one for one in pop3_stub.mails if one.uidl != "uidl-1"]
        await connection.send("-ERR no\r\n")
        return True

    pop3_stub.hooks["RETR"] = retr
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await caught_up(drop)
        pop3_stub.mails = [mail(1), mail(2)]
        await reader.wait_received(1)
        await caught_up(drop)
        pop3_stub.hooks.clear()
        pop3_stub.mails.append(mail(1))
        await reader.wait_received(2)
    assert subjects(await reader.events()) == ["mail 2", "mail 1"]
    assert not drop.states


@pytest.mark.fault("B06")
async def test_a_mail_that_breaks_each_connection_at_its_header_holds_up_no_other(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2)]

    async def top(connection: Pop3Connection, arguments: str) -> bool:
        if not arguments.startswith("1 "):
            return False
        connection.cut()
        return True

    pop3_stub.hooks["TOP"] = top
    async with following(bus, Drop(pop3_stub.port, initial="new")) as drop:
        await caught_up(drop)
        pop3_stub.mails.append(mail(3))
        await reader.wait_received(1)
    assert subjects(await reader.events()) == ["mail 3"]
    assert len(drop.states) == 3


# -- on Dovecot -------------------------------------------------------------------------------------------------


async def test_a_maildrop_of_dovecot_where_another_client_is_at_work(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await dovecot.append(prefix, [body(n) for n in range(1, 40)])
    drop = Drop(dovecot.pop3, prefix)
    async with following(bus, drop):
        await reader.wait_received(39)

        def act() -> None:
            with dovecot.client(prefix) as client:
                client.select()
                client.store("1:10", "+FLAGS", "\\Deleted")
                client.expunge()

        await asyncio.to_thread(act)
        await dovecot.append(prefix, [body(n) for n in range(40, 45)])
        await reader.wait_received(44)
        await seen(reader, {uid: set() for uid in range(11, 45)})
    assert not drop.alarms


@pytest.mark.fault("B05")
async def test_with_100000_messages_left_on_the_server_a_commit_is_as_small_as_ever(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [Mail(f"old-{n}", b"Subject: old\r\n\r\n") for n in range(100_000)]
    async with following(bus, Drop(pop3_stub.port, initial="new", reply_s=20.0)) as drop:
        await until(lambda: drop.proofs > 0, what=f"{drop.states}")
        pop3_stub.mails.append(mail(1))
        await reader.wait_received(1)
    pop3_stub.mails.append(mail(2))
    async with following(bus, Drop(pop3_stub.port, initial="new", reply_s=20.0)):
        await reader.wait_received(2)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2"]
    assert not any(line.startswith("TOP 1 ") for line in pop3_stub.commands)
    assert all(sum(map(len, event.headers.values())) < 2_000 for event in events)
