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


@pytest.mark.fault("B03")
async def test_what_has_no_unique_id_is_downloaded_once_however_often_the_listing_changes(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    without_uidl(pop3_stub)
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
