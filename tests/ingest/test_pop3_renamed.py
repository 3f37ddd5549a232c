"""Unique ids that change for some mails, or that another mail has by now: each mail is told once, by what it is."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from service.bus import Bus
from service.ingest import Announcer, doubts
from service.ingest.publish import MailboxLog
from tests.ingest.maildrop import (
    DELETE,
    LONG_AGO,
    NOW,
    Drop,
    body,
    caught_up,
    following,
    ids,
    kinds,
    mail,
    resets,
    run,
    subjects,
)
from tests.servers.mailbus import BusReader, until
from tests.servers.pop3_stub import Mail, Pop3Connection, Pop3Stub

pytestmark = pytest.mark.fault("B03", "B04")


def renamed(one: Mail, name: str) -> Mail:
    return Mail(name, one.body)


def downloads(stub: Pop3Stub) -> list[str]:
    return [line for line in stub.commands if line.startswith("RETR")]


@pytest.mark.parametrize("is_running", [True, False])
async def test_a_mail_whose_unique_id_changes_is_the_same_mail(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, *, is_running: bool
) -> None:
    pop3_stub.mails = [mail(1), mail(2), mail(3)]
    changed = [mail(1), renamed(mail(2), "other"), mail(3), mail(4)]
    if is_running:
        async with following(bus, Drop(pop3_stub.port)) as drop:
            await reader.wait_received(3)
            await caught_up(drop)
            pop3_stub.mails = changed
            await reader.wait_received(4)
            await caught_up(drop)
    else:
        await run(bus, pop3_stub)
        pop3_stub.mails = changed
        await run(bus, pop3_stub)
    # As often as it starts, and once the first snapshot that knows is there.
    await run(bus, pop3_stub)
    await run(bus, pop3_stub)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 3", "mail 4"]
    assert kinds(events) == ["reset", *["received"] * 4]
    assert len(downloads(pop3_stub)) == 4
    pop3_stub.mails = [mail(1), mail(3), mail(4)]
    await run(bus, pop3_stub)
    events = await reader.events()
    assert ids(events, "removed") == [ids(events)[1]]


async def test_a_mail_whose_unique_id_changed_is_deleted_when_its_time_has_come(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2)]
    await run(bus, pop3_stub, after=DELETE, delay_s=3600.0)
    pop3_stub.mails = [mail(1), renamed(mail(2), "other")]
    async with following(bus, Drop(pop3_stub.port, after=DELETE)):
        await until(lambda: not pop3_stub.mails)
    assert subjects(await reader.events()) == ["mail 1", "mail 2"]


async def test_a_copy_that_was_delivered_by_itself_as_the_first_went_is_another_mail(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(2)
        await caught_up(drop)
        pop3_stub.mails = [
            mail(1),
            Mail("copy", b"Received: from c by b; Fri, 1 Jan 2021 10:00:00 +0000\r\n" + body(2)),
        ]
        await reader.wait_received(3)
        await caught_up(drop)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 2"]
    assert ids(events, "removed") == [ids(events)[1]]


async def test_of_equal_copies_as_many_are_new_as_there_are_more(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(2)
        await caught_up(drop)
        pop3_stub.mails = [mail(1), renamed(mail(2), "one"), renamed(mail(2), "two")]
        await reader.wait_received(3)
        await caught_up(drop)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 2"]
    assert ids(events, "removed") == []


async def test_old_mail_below_the_starting_line_stays_there_when_its_unique_id_changes(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    old = [mail(n, LONG_AGO) for n in range(1, 4)]
    pop3_stub.mails = list(old)
    async with following(bus, Drop(pop3_stub.port, initial="new")) as drop:
        await caught_up(drop)
        # One goes, one is called otherwise; one that is as old is moved there by somebody.
        pop3_stub.mails = [old[0], renamed(old[1], "other"), mail(5)]
        await reader.wait_received(1)
        await caught_up(drop)
        pop3_stub.mails.append(mail(6, LONG_AGO))
        await reader.wait_received(2)
    assert subjects(await reader.events()) == ["mail 5", "mail 6"]
    assert len(downloads(pop3_stub)) == 2


async def test_old_mail_stays_below_the_starting_line_when_its_unique_id_changes_while_the_connection_is_lost(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    old = [mail(n, LONG_AGO) for n in range(1, 4)]
    pop3_stub.mails = list(old)
    async with following(bus, Drop(pop3_stub.port, initial="new")) as drop:
        await caught_up(drop)

        async def cut(connection: Pop3Connection, _arguments: str) -> bool:
            pop3_stub.hooks.clear()
            pop3_stub.mails = [old[0], renamed(old[1], "other"), mail(5)]
            connection.cut()
            return True

        pop3_stub.hooks["LIST"] = cut
        await reader.wait_received(1)
        await caught_up(drop)
    assert subjects(await reader.events()) == ["mail 5"]
    assert drop.states


async def test_mail_that_was_recognised_is_known_when_some_unique_ids_change_later(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    # Of no date that is older than the epoch.
    one, two, three, four = (mail(n, NOW + timedelta(days=1)) for n in range(1, 5))
    async with following(bus, Drop(pop3_stub.port, initial="new")) as drop:
        await caught_up(drop)
        pop3_stub.mails = [one, two]
        await reader.wait_received(2)
        await caught_up(drop)
        pop3_stub.mails = [renamed(one, "a"), renamed(two, "b"), three]
        await reader.wait_received(3)
        await caught_up(drop)
        pop3_stub.mails = [renamed(one, "a"), renamed(two, "c"), three, four]
        await reader.wait_received(4)
        await caught_up(drop)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 3", "mail 4"]
    assert resets(events) == ["start", "uidvalidity"]


async def test_another_mail_of_the_same_size_under_a_unique_id_that_was_told_to_be_gone_is_announced_after_a_start(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    def one(number: int) -> Mail:
        return Mail("uidl-1", b"Message-ID: <%d@x>\r\nSubject: mail %d\r\n\r\nx\r\n" % (number, number))

    pop3_stub.mails = [one(1), mail(2)]
    await run(bus, pop3_stub)
    pop3_stub.mails = [mail(2)]
    await run(bus, pop3_stub)
    pop3_stub.mails = [mail(2), one(3)]
    await run(bus, pop3_stub)
    await run(bus, pop3_stub)
    pop3_stub.mails = [mail(2)]
    await run(bus, pop3_stub)
    # Hidden and shown again it is the same: looked at, and not announced.
    pop3_stub.mails = [one(3), mail(2)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await caught_up(drop)
        pop3_stub.commands.clear()
        await caught_up(drop)
        await caught_up(drop)
        assert not any(line.startswith(("TOP", "RETR")) for line in pop3_stub.commands)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 3"]
    assert resets(events) == ["start"]


async def test_a_mail_that_shows_again_with_another_size_is_the_same_where_its_header_says_so(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(2)
        await caught_up(drop)
        pop3_stub.mails = [mail(2)]
        await until(lambda: drop.memory is not None and len(drop.memory.known) == 1)
        pop3_stub.mails = [mail(2), Mail("uidl-1", body(1) + b"x\r\n")]
        await caught_up(drop)
        await caught_up(drop)
        pop3_stub.mails.append(mail(3))
        await reader.wait_received(3)
        # Once more another size: it is looked at once more.
        pop3_stub.mails[1] = Mail("uidl-1", body(1) + b"xx\r\n")
        pop3_stub.mails.append(mail(4))
        await reader.wait_received(4)
        await caught_up(drop)
        pop3_stub.commands.clear()
        pop3_stub.mails.append(mail(5))
        await reader.wait_received(5)
    assert subjects(await reader.events()) == ["mail 1", "mail 2", "mail 3", "mail 4", "mail 5"]
    assert not any(line.startswith("TOP") for line in pop3_stub.commands)


async def test_nothing_below_the_starting_line_is_read_whole(pop3_stub: Pop3Stub, bus: Bus, reader: BusReader) -> None:
    # Gmail does to what is read whole what its settings say.
    pop3_stub.mails = [mail(1, LONG_AGO), mail(2, NOW), mail(3, NOW)]
    async with following(bus, Drop(pop3_stub.port, initial="new")) as drop:
        await caught_up(drop)
        assert downloads(pop3_stub) == []
        # All ids change: what was there is known by what was looked at.
        pop3_stub.mails = [Mail(f"other-{n}", one.body) for n, one in enumerate(pop3_stub.mails)]
        pop3_stub.mails.append(mail(4))
        await reader.wait_received(1)
        await caught_up(drop)
    events = await reader.events()
    assert subjects(events) == ["mail 4"]
    assert resets(events) == ["start", "uidvalidity"]
    assert downloads(pop3_stub) == ["RETR 4"]


@pytest.mark.parametrize("is_running", [True, False])
async def test_where_a_server_counts_its_ids_anew_each_mail_is_told_once(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, *, is_running: bool
) -> None:
    def numbered(numbers: list[int]) -> list[Mail]:
        return [Mail(str(place), body(number)) for place, number in enumerate(numbers, 1)]

    async with following(bus, Drop(pop3_stub.port, initial="new")) as drop:
        await caught_up(drop)
        pop3_stub.mails = numbered([1, 2, 3])
        await reader.wait_received(3)
        await caught_up(drop)
        if is_running:
            # The first went and one came, all under the ids that there were.
            pop3_stub.mails = numbered([2, 3, 4])
            await reader.wait_received(4)
            await caught_up(drop)
    if not is_running:
        pop3_stub.mails = [Mail("2", body(2)), Mail("3", body(3))]
        await run(bus, pop3_stub, initial="new")
        pop3_stub.mails = numbered([2, 3, 4])
        await run(bus, pop3_stub, initial="new")
    await run(bus, pop3_stub, initial="new")
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 3", "mail 4"]
    assert resets(events) == ["start", "uidvalidity"]


async def test_a_mail_that_took_the_unique_id_of_another_between_two_looks_is_told(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(2)
        await caught_up(drop)
        pop3_stub.mails = [mail(1), Mail("uidl-2", body(30))]
        await reader.wait_received(3)
        await caught_up(drop)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 30"]
    assert ids(events, "removed") == [ids(events)[1]]
    assert resets(events) == ["start"]


async def test_what_came_after_a_long_absence_does_not_wait_until_all_of_it_was_looked_at(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubts, "LOOK_LIMIT", 1)
    pop3_stub.mails = [mail(1), mail(2)]
    await run(bus, pop3_stub)
    pop3_stub.mails = [mail(1), *(mail(n) for n in range(3, 10)), mail(10)]
    pop3_stub.commands.clear()
    await run(bus, pop3_stub)
    assert [line for line in pop3_stub.commands if line.startswith("TOP")] == ["TOP 2 10", "TOP 3 10", "TOP 4 10"]
    assert subjects(await reader.events()) == [f"mail {n}" for n in range(1, 11)]


async def test_a_maildrop_that_was_empty_for_a_look_and_has_other_ids_then_is_the_same_maildrop(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    async with following(bus, Drop(pop3_stub.port, initial="new")) as drop:
        await caught_up(drop)
        pop3_stub.mails = [mail(1), mail(2)]
        await reader.wait_received(2)
        # A migration: for a while there is nothing.
        pop3_stub.mails = []
        await caught_up(drop)
        await caught_up(drop)
        pop3_stub.mails = [renamed(mail(1), "a"), renamed(mail(2), "b"), mail(3)]
        await reader.wait_received(3)
        await caught_up(drop)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 3"]
    assert kinds(events).count("removed") == 2
    assert resets(events) == ["start", "uidvalidity"]


async def test_a_mail_whose_unique_id_changes_before_it_is_announced_is_the_same_mail(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ingest.plan.PAGE_LIMIT_MESSAGES", 1)
    pop3_stub.mails = [mail(n) for n in range(1, 21)]
    commit, stored, cut, read_on = MailboxLog.commit, Announcer.stored, asyncio.Event(), asyncio.Event()
    last = 0

    async def note(_connection: Pop3Connection, number: str) -> bool:
        nonlocal last
        if cut.is_set():
            read_on.set()
        else:
            last = int(number)
        return False

    async def cut_far_ahead(self: Announcer, page: Any, unavailable: Any) -> Any:
        if not cut.is_set():
            before = 0
            while before != last:
                before = last
                await asyncio.sleep(0.2)
            pop3_stub.mails[last - 1] = renamed(mail(last), "other")
            for connection in pop3_stub.connections:
                connection.cut()
            cut.set()
            await asyncio.sleep(0.1)  # it is noticed while nothing is read
        return await stored(self, page, unavailable)

    async def after_the_next_look(self: MailboxLog, messages: Any, cursor: Any, **more: Any) -> None:
        if cursor.last == last:
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await read_on.wait()
        await commit(self, messages, cursor, **more)

    pop3_stub.hooks["RETR"] = note
    monkeypatch.setattr(Announcer, "stored", cut_far_ahead)
    monkeypatch.setattr(MailboxLog, "commit", after_the_next_look)
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(20)
        await caught_up(drop)
    assert 1 < last < 20
    events = await reader.events()
    assert subjects(events) == [f"mail {n}" for n in range(1, 21)]
    assert kinds(events) == ["reset", *["received"] * 20]
