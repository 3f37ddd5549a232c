"""Listings that fall short of what there is: nothing counts as gone, nothing is announced twice."""

import asyncio

import pytest

from service.bus import Bus
from service.errors import MailbusError
from tests.ingest.maildrop import DELETE, Drop, caught_up, following, kinds, mail, subjects
from tests.pop3.harness import answering
from tests.servers.mailbus import BusReader, until
from tests.servers.pop3_stub import Hook, Mail, Pop3Connection, Pop3Stub


def short(stub: Pop3Stub, name: str, rows: int, times: int = 1_000_000) -> Hook:
    """LIST or UIDL shows so many of its lines, so many times, and ends as if that were all."""
    left = times

    async def hook(connection: Pop3Connection, _arguments: str) -> bool:
        nonlocal left
        if left <= 0 or connection.drop is None:
            return False
        left -= 1
        said = [len(one.body) if name == "LIST" else one.uidl for one in connection.drop]
        lines = [f"{n} {what}\r\n" for n, what in enumerate(said, 1)][:rows]
        await connection.send("".join(["+OK\r\n", *lines, ".\r\n"]))
        return True

    stub.hooks[name] = hook
    return hook


def failures(drop: Drop) -> list[MailbusError]:
    return [error for _, error in drop.states if error is not None]


@pytest.mark.fault("B03", "B06")
@pytest.mark.parametrize("name", ["LIST", "UIDL"])
@pytest.mark.parametrize("rows", [0, 1, 2])
async def test_a_listing_that_ends_too_soon_is_asked_again_and_nothing_is_gone(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, name: str, rows: int
) -> None:
    pop3_stub.mails = [mail(1), mail(2), mail(3)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(3)
        await caught_up(drop)
        short(pop3_stub, name, rows, times=2)
        await until(lambda: len(failures(drop)) == 2)
        await caught_up(drop)
        pop3_stub.mails.append(mail(4))
        await reader.wait_received(4)
    events = await reader.events()
    assert kinds(events) == ["reset", *["received"] * 4]
    assert all("falls short" in error.what for error in failures(drop))
    assert not drop.alarms


@pytest.mark.fault("B03", "B06")
@pytest.mark.parametrize("name", ["LIST", "UIDL"])
async def test_a_listing_that_ends_too_soon_at_a_start_draws_no_starting_line(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, name: str
) -> None:
    pop3_stub.mails = [mail(1), mail(2), mail(3)]
    short(pop3_stub, name, 1, times=1)
    async with following(bus, Drop(pop3_stub.port, initial="new")) as drop:
        await caught_up(drop)
        pop3_stub.mails.append(mail(4))
        await reader.wait_received(1)
    assert subjects(await reader.events()) == ["mail 4"]


@pytest.mark.fault("B03")
async def test_a_server_that_says_nothing_of_what_it_can_and_refuses_uidl_for_once_is_asked_again(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.hooks["CAPA"] = answering("-ERR what?\r\n")
    pop3_stub.mails = [mail(1), mail(2)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(2)
        await caught_up(drop)
        pop3_stub.hooks["UIDL"] = answering("-ERR busy\r\n")
        await until(lambda: bool(failures(drop)))
        del pop3_stub.hooks["UIDL"]
        pop3_stub.mails.append(mail(3))
        await reader.wait_received(3)
    events = await reader.events()
    assert kinds(events) == ["reset", *["received"] * 3]
    assert [line for line in pop3_stub.commands if line.startswith("RETR")] == ["RETR 1", "RETR 2", "RETR 3"]


@pytest.mark.fault("B03")
async def test_a_server_that_has_no_unique_ids_any_more_is_doubted_once(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.hooks["CAPA"] = answering("-ERR what?\r\n")
    pop3_stub.mails = [mail(1), mail(2)]
    async with following(bus, Drop(pop3_stub.port, initial="new")) as drop:
        await caught_up(drop)
        pop3_stub.hooks["UIDL"] = answering("-ERR what?\r\n")
        await until(lambda: len(failures(drop)) >= 2)
        for number in (3, 4):
            await caught_up(drop)
            pop3_stub.mails.append(mail(number))
            await reader.wait_received(number - 2)
    assert sum("falls short" in error.what for error in failures(drop)) == 2
    assert subjects(await reader.events()) == ["mail 3", "mail 4"]


@pytest.mark.fault("B03")
async def test_a_server_that_has_no_unique_ids_any_more_is_believed_although_mail_keeps_coming(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    async def refuse(connection: Pop3Connection, _arguments: str) -> bool:
        if len(pop3_stub.mails) < 8:
            pop3_stub.mails.append(mail(len(pop3_stub.mails) + 1))
        await connection.send("-ERR what?\r\n")
        return True

    pop3_stub.hooks["CAPA"] = answering("-ERR what?\r\n")
    pop3_stub.mails = [mail(1), mail(2)]
    async with following(bus, Drop(pop3_stub.port, initial="new")) as drop:
        await caught_up(drop)
        pop3_stub.hooks["UIDL"] = refuse
        await reader.wait_received(6)
    assert sum("falls short" in error.what for error in failures(drop)) == 2
    assert subjects(await reader.events()) == [f"mail {number}" for number in range(3, 9)]


@pytest.mark.fault("B03", "B06")
async def test_a_mail_whose_unique_id_is_left_out_now_and_then_is_the_same_mail(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(10), mail(100)]
    left_out = 0

    async def leave_out(connection: Pop3Connection, _arguments: str) -> bool:
        nonlocal left_out
        if left_out == 6 or connection.drop is None:
            return False
        left_out += 1
        lines = [f"{n} {one.uidl}\r\n" for n, one in enumerate(connection.drop, 1) if n != left_out % 3 + 1]
        await connection.send("".join(["+OK\r\n", *lines, ".\r\n"]))
        return True

    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(3)
        await caught_up(drop)
        pop3_stub.hooks["UIDL"] = leave_out
        await until(lambda: left_out == 6)
        await caught_up(drop)
    assert kinds(await reader.events()) == ["reset", *["received"] * 3]


@pytest.mark.fault("B06")
async def test_a_server_that_never_lists_all_is_followed_and_nothing_is_told_to_be_removed(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2), mail(3)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(3)
        await caught_up(drop)
        short(pop3_stub, "LIST", 2)
        short(pop3_stub, "UIDL", 2)
        await until(lambda: bool(drop.alarms))
        await caught_up(drop)
        await caught_up(drop)
        pop3_stub.hooks.clear()
        pop3_stub.mails.append(mail(4))
        await reader.wait_received(4)
    events = await reader.events()
    assert kinds(events) == ["reset", *["received"] * 4]
    assert "more than it lists" in drop.alarms[0].what


@pytest.mark.fault("B01")
async def test_what_a_short_listing_hides_is_not_taken_for_deleted(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2)]
    hidden = asyncio.Event()
    normal = short(pop3_stub, "LIST", 1)

    async def hides(connection: Pop3Connection, arguments: str) -> bool:
        # From the moment on that all is announced: deleting finds one of two.
        return hidden.is_set() and await normal(connection, arguments)

    pop3_stub.hooks["LIST"] = hides
    async with following(bus, Drop(pop3_stub.port, after=DELETE, delay_s=0.3)) as drop:
        await reader.wait_received(2)
        hidden.set()
        await until(lambda: len(failures(drop)) > 1)
        assert pop3_stub.uidls == ["uidl-1", "uidl-2"] or pop3_stub.uidls == ["uidl-2"]
        hidden.clear()
        await until(lambda: not pop3_stub.mails)
        await caught_up(drop)
    assert subjects(await reader.events()) == ["mail 1", "mail 2"]


def without_uidl(stub: Pop3Stub) -> None:
    stub.capabilities = "TOP USER PIPELINING"
    stub.hooks["UIDL"] = answering("-ERR what?\r\n")


def nameless(text: bytes, *, delivered: bool) -> Mail:
    received = b"Received: from a by b; Fri, 1 Jan 2021 10:00:%b +0000\r\n" % text if delivered else b""
    return Mail("", received + b"Message-ID: <%b@b>\r\nSubject: mail\r\n\r\n%b\r\n" % (text, text))


def topless(stub: Pop3Stub) -> None:
    """TOP leaves out the empty line after the header."""

    async def top(connection: Pop3Connection, arguments: str) -> bool:
        assert connection.drop is not None
        header = connection.drop[int(arguments.partition(" ")[0]) - 1].body.partition(b"\r\n\r\n")[0]
        await connection.send(b"+OK\r\n" + header + b"\r\n.\r\n")
        return True

    stub.hooks["TOP"] = top


@pytest.mark.fault("B03")
@pytest.mark.parametrize("is_usual", [True, False])
async def test_what_has_no_unique_id_is_downloaded_once_however_often_the_listing_changes(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, *, is_usual: bool
) -> None:
    without_uidl(pop3_stub)
    if not is_usual:
        topless(pop3_stub)
    pop3_stub.mails = [nameless(b"01", delivered=True), nameless(b"02", delivered=True)]
    async with following(bus, Drop(pop3_stub.port, after=DELETE, delay_s=0.2)):
        await reader.wait_received(2)
        pop3_stub.mails.append(nameless(b"03", delivered=True))
        await reader.wait_received(3)
        await until(lambda: not pop3_stub.mails)
    assert kinds(await reader.events()).count("received") == 3
    # To be named, and to be announced.
    assert sum(line.startswith("RETR") for line in pop3_stub.commands) == 6


@pytest.mark.fault("B03")
@pytest.mark.parametrize("delivered", [True, False])
async def test_another_mail_of_the_same_size_without_a_unique_id_is_another(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, *, delivered: bool
) -> None:
    without_uidl(pop3_stub)
    pop3_stub.mails = [nameless(b"01", delivered=delivered)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(1)
        await caught_up(drop)
        pop3_stub.mails = [nameless(b"02", delivered=delivered)]
        await reader.wait_received(2)
        await caught_up(drop)
    events = await reader.events()
    assert kinds(events) == ["reset", "received", "received", "removed"]


@pytest.mark.fault("B03")
async def test_mails_of_one_header_and_size_are_not_merged_where_the_listing_is_another(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    without_uidl(pop3_stub)
    same = b"Message-ID: <a@b>\r\nSubject: mail\r\n\r\n"
    pop3_stub.mails = [Mail("", same + b"aaa\r\n")]
    async with following(bus, Drop(pop3_stub.port)):
        await reader.wait_received(1)
        pop3_stub.mails.append(Mail("", same + b"bbb\r\n"))
        await reader.wait_received(2)


@pytest.mark.fault("B03", "B06")
@pytest.mark.parametrize("cuts", [True, False])
async def test_a_mail_without_a_unique_id_that_cannot_be_had_holds_up_no_other_and_is_said(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, *, cuts: bool
) -> None:
    without_uidl(pop3_stub)
    bad = nameless(b"02", delivered=True)
    pop3_stub.mails = [nameless(b"01", delivered=True), bad, nameless(b"03", delivered=True)]

    async def retr(connection: Pop3Connection, arguments: str) -> bool:
        assert connection.drop is not None
        if connection.drop[int(arguments) - 1] is not bad:
            return False
        if cuts:
            connection.cut()
        else:
            await connection.send("-ERR no\r\n")
        return True

    pop3_stub.hooks["RETR"] = retr
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(3)
        await caught_up(drop)
        asked = pop3_stub.commands.count("RETR 2")
        # It is known from now on, wherever it stands.
        del pop3_stub.mails[0]
        pop3_stub.mails.append(nameless(b"04", delivered=True))
        await reader.wait_received(4)
        await caught_up(drop)
    events = await reader.events()
    problems = [event.body["mailbus"].get("problem") for event in events if event.kind == "received"]
    assert [problem["type"] for problem in problems if problem] == ["unavailable"]
    assert sorted(kinds(events)) == [*["received"] * 4, "removed", "reset"]
    assert asked <= 8


@pytest.mark.fault("B03", "B06")
@pytest.mark.parametrize("has_top", [True, False])
async def test_a_mail_that_comes_to_the_place_of_one_that_cannot_be_had_is_read(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, *, has_top: bool
) -> None:
    without_uidl(pop3_stub)
    if not has_top:
        pop3_stub.hooks["TOP"] = answering("-ERR what?\r\n")
    bad = nameless(b"02", delivered=True)
    pop3_stub.mails = [nameless(b"01", delivered=True), bad, nameless(b"03", delivered=True)]

    async def retr(connection: Pop3Connection, arguments: str) -> bool:
        assert connection.drop is not None
        if connection.drop[int(arguments) - 1] is not bad:
            return False
        await connection.send("-ERR no\r\n")
        return True

    pop3_stub.hooks["RETR"] = retr
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(3)
        await caught_up(drop)
        del pop3_stub.mails[:2]
        pop3_stub.mails.append(nameless(b"04", delivered=True))
        await reader.wait_received(4)
        await caught_up(drop)
    events = await reader.events()
    problems = [event.body["mailbus"].get("problem") for event in events if event.kind == "received"]
    assert sum(problem is not None for problem in problems) == 1
    assert problems[-1] is None


@pytest.mark.fault("B03")
async def test_over_a_line_that_does_not_last_mail_without_unique_ids_is_learnt_a_part_at_a_time(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    without_uidl(pop3_stub)
    pop3_stub.mails = [nameless(b"%02d" % n, delivered=n % 2 == 0) for n in range(10, 20)]
    read: list[Mail] = []
    lines: dict[int, list[Pop3Connection]] = {}

    async def retr(connection: Pop3Connection, arguments: str) -> bool:
        assert connection.drop is not None
        one, asked = connection.drop[int(arguments) - 1], lines.setdefault(id(connection), [])
        asked.append(connection)
        if len(read) < 10 and len(asked) > 2:
            connection.cut()
            return True
        read.append(one)
        return False

    pop3_stub.hooks["RETR"] = retr
    async with following(bus, Drop(pop3_stub.port)):
        await reader.wait_received(10)
    # Each was read once to be known.
    assert sorted(one.body for one in read[:10]) == sorted(one.body for one in pop3_stub.mails)
    assert kinds(await reader.events()) == ["reset", *["received"] * 10]
