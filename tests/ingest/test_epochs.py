"""A mailbox numbered anew, made again, or behind other settings: one reset, and nothing old is announced as new."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace as replaced
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec.structs import replace

from service.bus import Bus
from service.contract import AccountState, email_id
from service.ingest import Alone, Announcer, Before, Cursor, Epoch, Former, Memory, Position, Recalled, Source, Why
from service.ingest.cursor import Named
from service.ingest.epochs import Epochs
from tests.ingest.harness import Box, following
from tests.ingest.view import act, mail, quick, seen, view, watching
from tests.servers.clock import FakeClock
from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import ImapServer
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import BusReader, Event, until
from tests.servers.proxy import FaultProxy, Way

LONG_AGO = "01-Jan-2020 10:00:00 +0000"


@pytest.fixture(params=["qresync", "cyrus"])
def server(request: pytest.FixtureRequest, server_that: Callable[[str], ImapServer]) -> ImapServer:
    return server_that(request.param)


def at(moment: datetime) -> str:
    return moment.strftime("%d-%b-%Y %H:%M:%S +0000")


def made_again(server: ImapServer, user: str, messages: list[tuple[int, str]], *, first: bool = False) -> None:
    """The mailbox `Box`, deleted and made again with these messages: number and date."""
    if not first:
        server.make_again(user, "Box")
    with server.client(user) as client:
        if first:
            client.create("Box")
        for number, date in messages:
            client.append("Box", "", f'"{date}"', mail(number))


def appended(server: ImapServer, user: str, message: tuple[int, str]) -> None:
    with server.client(user) as client:
        client.append("Box", "", f'"{message[1]}"', mail(message[0]))


def subjects(events: list[Event]) -> list[str]:
    return [event.body["subject"] for event in events if event.kind == "received"]


def resets(events: list[Event]) -> list[str]:
    return [event.body["reason"] for event in events if event.kind == "reset"]


async def begun(reader: BusReader, reasons: list[str]) -> None:
    """Until there were these resets."""
    deadline = asyncio.get_running_loop().time() + 30
    while resets(found := await reader.events()) != reasons:
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(0.02)


@pytest.mark.fault("A05")
async def test_of_a_mailbox_made_again_only_what_came_meanwhile_is_announced(
    server: ImapServer, bus: Bus, reader: BusReader, prefix: str
) -> None:
    now = datetime.now(UTC)
    old = [(1, LONG_AGO), (2, at(now - timedelta(minutes=2))), (3, at(now - timedelta(minutes=1)))]
    new = [(4, at(now)), (5, at(now)), (6, at(now))]
    await asyncio.to_thread(made_again, server, prefix, old, first=True)
    box = quick(server, prefix, mailbox="Box", initial="new")
    async with following(bus, box):
        await watching(box)
        for number, date in new[:2]:
            with server.client(prefix) as client:
                client.append("Box", "", f'"{date}"', mail(number))
        await reader.wait_received(2)
    # Numbered anew, in another order, with one message more, one less, and one that was moved in and is long ago.
    again = [new[1], new[2], old[0], old[2], new[0], (7, LONG_AGO)]
    await asyncio.to_thread(made_again, server, prefix, again)
    box = quick(server, prefix, mailbox="Box", initial="new")
    async with following(bus, box):
        await reader.wait_received(3)
        await watching(box)
    events = await reader.events()
    assert resets(events) == ["start", "uidvalidity"]
    assert subjects(events) == ["mail 4", "mail 5", "mail 6"]
    assert events[3].kind == "reset"
    assert events[3].body["oldUidvalidity"] == events[0].body["uidvalidity"]
    # And once more: what was carried over in silence is still no news.
    await asyncio.to_thread(made_again, server, prefix, [*again, (8, at(now))])
    box = quick(server, prefix, mailbox="Box", initial="new")
    async with following(bus, box):
        await reader.wait_received(4)
        await watching(box)
    assert subjects(await reader.events()) == ["mail 4", "mail 5", "mail 6", "mail 8"]
    assert not box.states


@pytest.mark.fault("A05")
async def test_since_announces_after_a_reset_what_is_not_recognised_and_new_enough(
    server: ImapServer, bus: Bus, reader: BusReader, prefix: str
) -> None:
    now = datetime.now(UTC)
    dates = [LONG_AGO, at(now - timedelta(days=3)), at(now - timedelta(days=1)), at(now)]
    await asyncio.to_thread(made_again, server, prefix, list(enumerate(dates[:3], 1)), first=True)
    since = now - timedelta(days=4)
    async with following(bus, quick(server, prefix, mailbox="Box", initial=since)):
        await reader.wait_received(2)
    for extra in (4, 5):
        more = [(n, at(now)) for n in range(4, extra + 1)]
        await asyncio.to_thread(made_again, server, prefix, [*enumerate(dates[:3], 1), *more])
        box = quick(server, prefix, mailbox="Box", initial=since)
        async with following(bus, box):
            await reader.wait_received(extra - 1)
            await watching(box)
    assert subjects(await reader.events()) == ["mail 2", "mail 3", "mail 4", "mail 5"]


@pytest.mark.fault("A05")
async def test_all_announces_everything_again_with_the_id_from_before(
    server: ImapServer, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await asyncio.to_thread(made_again, server, prefix, [(n, LONG_AGO) for n in (1, 2, 3)], first=True)
    async with following(bus, quick(server, prefix, mailbox="Box")):
        await reader.wait_received(3)
        before = (await view(reader)).messages
        await act(server, prefix, ("STORE", "2", "+FLAGS", r"(\Seen)"), mailbox="Box")
        await seen(reader, before | {2: frozenset({"$seen"})})
    first = await reader.events()
    await asyncio.to_thread(made_again, server, prefix, [(n, LONG_AGO) for n in (3, 4, 1)])
    async with following(bus, quick(server, prefix, mailbox="Box")):
        await reader.wait_received(6)
    ids = {event.body["subject"]: event.body["id"] for event in first if event.kind == "received"}
    again = [event.body for event in (await reader.received())[3:]]
    assert [one["subject"] for one in again] == ["mail 3", "mail 4", "mail 1"]
    assert [one["mailbus"].get("previousId") for one in again] == [ids["mail 3"], None, ids["mail 1"]]
    # The old ids are void: nothing says that they are removed.
    assert (await view(reader)).messages == {1: frozenset(), 2: frozenset(), 3: frozenset()}


async def test_what_a_reset_announced_is_watched_and_what_it_carried_over_is_not(
    server: ImapServer, bus: Bus, reader: BusReader, prefix: str
) -> None:
    now = at(datetime.now(UTC))
    await asyncio.to_thread(made_again, server, prefix, [], first=True)
    box = quick(server, prefix, mailbox="Box", initial="new")
    async with following(bus, box):
        await watching(box)
        with server.client(prefix) as client:
            client.append("Box", "", f'"{now}"', mail(1))
        await reader.wait_received(1)
    await asyncio.to_thread(made_again, server, prefix, [(1, now), (2, now)])
    box = quick(server, prefix, mailbox="Box", initial="new")
    async with following(bus, box):
        await seen(reader, {2: set()})
        await act(server, prefix, ("STORE", "1:2", "+FLAGS", r"(\Seen)"), mailbox="Box")
        found = await seen(reader, {2: {"$seen"}})
    assert [kind for kind, _ in found.told] == ["received", "received", "changed"]


@pytest.mark.fault("A05")
async def test_killed_while_it_announces_after_a_reset_it_goes_on_recognising(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mails(*numbers: int) -> dict[int, bytes]:
        return {uid: mail(number) for uid, number in enumerate(numbers, 1)}

    imap_stub.messages = mails(*range(1, 9))
    async with following(bus, Box(imap_stub.port, initial="all")):
        await reader.wait_received(8)
    imap_stub.uidvalidity = 8
    imap_stub.messages = mails(1, 2, 20, 3, 4, 21, 5, 6, 22, 7, 8, 23)
    monkeypatch.setattr("service.ingest.windows.SURVEY_LIMIT_UIDS", 4)
    # Ended when the first of the new mails is there, and again at the second, and so on.
    for count in range(1, 5):
        async with following(bus, Box(imap_stub.port, initial="new")):
            await reader.wait_received(8 + count)
    box = Box(imap_stub.port, initial="new")
    async with following(bus, box):
        await watching(box)
    events = await reader.events()
    assert resets(events) == ["start", "uidvalidity"]
    assert subjects(events)[8:] == ["mail 20", "mail 21", "mail 22", "mail 23"]


@pytest.mark.fault("A06")
async def test_another_user_under_the_same_account_is_a_reset(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    one, two = f"{prefix}a", f"{prefix}b"
    await dovecot.append(one, [mail(n) for n in (1, 2, 3)])
    async with following(bus, quick(dovecot, one)):
        await reader.wait_received(3)
    await dovecot.append(two, [mail(n) for n in (11, 12)])
    async with following(bus, quick(dovecot, two)):
        await reader.wait_received(5)
    events = await reader.events()
    assert resets(events) == ["start", "source"]
    assert subjects(events) == ["mail 1", "mail 2", "mail 3", "mail 11", "mail 12"]
    assert set((await view(reader)).messages) == {1, 2}


@pytest.mark.fault("A07")
async def test_numbers_that_run_backwards_are_a_reset_with_ids_of_its_own(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2, 3)}
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(3)
    # The same UIDVALIDITY, and other mail under the same numbers.
    imap_stub.messages = {1: mail(1), 2: mail(12)}
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(5)
    events = await reader.events()
    assert resets(events) == ["start", "source"]
    assert subjects(events) == ["mail 1", "mail 2", "mail 3", "mail 1", "mail 12"]
    assert len({event.headers["ce-id"] for event in events}) == len(events)
    assert [e.body["mailbus"].get("previousId") for e in events[5:]] == [email_id("INBOX", 7, 1), None]
    # What an id means is told by it: a command with one from before is 409.
    assert [e.body["id"] for e in events[5:]] == [email_id("INBOX", 7, uid, 1) for uid in (1, 2)]
    assert [e.body["id"] for e in events[1:4]] == [email_id("INBOX", 7, uid) for uid in (1, 2, 3)]


@pytest.mark.fault("A07")
async def test_a_wrong_uidnext_alone_is_no_reset(imap_stub: ImapStub, bus: Bus, reader: BusReader) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2, 3)}
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(3)
    imap_stub.uidnext = 2
    box = Box(imap_stub.port)
    async with following(bus, box):
        await watching(box)
        imap_stub.uidnext = 0
        await imap_stub.deliver(4, mail(4))
        await reader.wait_received(4)
    assert resets(await reader.events()) == ["start"]


@pytest.mark.fault("A07")
async def test_late_mail_under_a_lower_number_is_announced_once(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2, 5)}
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(3)
    imap_stub.messages[3] = mail(3)
    for _ in range(2):
        box = Box(imap_stub.port)
        async with following(bus, box):
            await watching(box)
            await reader.wait_received(4)
    found = await view(reader)
    assert found.told == [("received", n) for n in (1, 2, 5, 3)]


async def test_without_the_snapshot_of_before_the_initial_rule_decides_alone_and_it_is_said(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2)}
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(2)
    # Nobody knows any more what was announced.
    await bus.nc.jetstream().purge_stream(f"{bus.subjects.prefix.upper()}_IN", seq=3)
    imap_stub.uidvalidity = 8
    imap_stub.messages = {n: mail(n) for n in (1, 2, 3)}
    box = Box(imap_stub.port, initial="new")
    async with following(bus, box):
        await watching(box)
        await imap_stub.deliver(4, mail(4))
        await until(lambda: any(state is AccountState.DEGRADED for state, _ in box.states))
        await reader.wait_received(2)
    assert subjects(await reader.events()) == ["mail 2", "mail 4"]
    assert "recognised" in str(box.states[0][1])


@pytest.mark.fault("A05")
async def test_numbered_anew_again_before_its_mail_was_gone_through_nothing_is_lost_or_told_twice(
    server: ImapServer,
    bus: Bus,
    reader: BusReader,
    prefix: str,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
) -> None:
    now = datetime.now(UTC)
    known, late = (1, at(now)), (2, at(now - timedelta(hours=2)))
    await asyncio.to_thread(made_again, server, prefix, [], first=True)
    box = quick(server, prefix, mailbox="Box", initial="new")
    async with following(bus, box):
        await watching(box)
        await asyncio.to_thread(appended, server, prefix, known)
        await reader.wait_received(1)
    # While nobody looks: a new number, and a mail that came two hours ago.
    await asyncio.to_thread(made_again, server, prefix, [known, late])
    proxy = await fault_proxy(server.host, server.imap)

    def stop_at_a_body(way: Way, chunk: bytes) -> bytes:
        if way is Way.TO_SERVER and b"BODY.PEEK[]" in chunk:
            proxy.swallow()
        return chunk

    proxy.watch = stop_at_a_body
    box = replaced(quick(server, prefix, mailbox="Box", initial="new"), port=proxy.port)
    async with following(bus, box):
        await begun(reader, ["start", "uidvalidity"])
    await asyncio.to_thread(made_again, server, prefix, [known, late])
    box = quick(server, prefix, mailbox="Box", initial="new")
    async with following(bus, box):
        await reader.wait_received(2)
        await watching(box)
    assert subjects(await reader.events()) == ["mail 1", "mail 2"]
    assert not box.alarms


class Noting(Alone):
    """A mailbox that was another's until now; what it says of what was known there, beside what it commits."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    async def former(self, epoch: Epoch, *, begun: bool) -> Sequence[Former]:
        known = Cursor("old", epoch.uidvalidity, 5, 0, "one/1", state=Named(7, 3, "snapshot"))
        return [Former("Old", known, "new", proved=True, seq=9)]

    async def stayed(self, cursor: Cursor) -> Sequence[str]:
        self.said.append(f"stayed at {cursor.last}")
        return ["of then"]

    async def taken(self, before: Before) -> None:
        self.said.append(f"taken {before.id}")

    async def settled(self, snapshot: str) -> bool:
        self.said.append(f"settled {snapshot}")
        return True


def epochs(source: SimpleNamespace, memory: SimpleNamespace, said: list[str]) -> Epochs:
    return Epochs(
        cast(Source, source),
        cast(Memory, memory),
        cast(Announcer, SimpleNamespace(reset=lambda *_: None)),
        initial="new",
        account="box",
        mailbox="New",
        writer="one/1",
        degraded=lambda _: None,
        clock=FakeClock(),
        kinship=Noting(said),
    )


async def test_what_was_known_under_another_name_is_kept_from_before_the_reset_until_all_has_passed() -> None:
    said: list[str] = []

    async def begin(_event: object, cursor: Cursor) -> Cursor:
        said.append(f"committed {cursor.before.id}" if cursor.before is not None else "committed")
        return cursor

    async def nothing(*_: object, **__: object) -> None:
        return None

    async def highest() -> int:
        return 6

    source = SimpleNamespace(id="new", highest=highest, since=nothing)
    made = epochs(source, SimpleNamespace(begin=begin, recogniser=nothing), said)
    begun = await made.begin(Position(Why.NEW, 0, None), Epoch(1_700_000_000, 7, 6))
    assert said == ["taken snapshot", "committed snapshot"]
    assert (await made.settled(replace(begun.cursor, last=5))).before is not None
    assert (await made.settled(replace(begun.cursor, last=6))).before is None
    assert said[2:] == ["settled snapshot"]


async def test_who_goes_on_in_its_epoch_says_that_it_has_not_left_it() -> None:
    said: list[str] = []

    async def recall(*_: object) -> Recalled:
        return Recalled.WHOLE

    made = epochs(SimpleNamespace(id="new"), SimpleNamespace(recall=recall, passed_by=said.append), said)
    cursor = Cursor("new", 1_700_000_000, 5, 0, "one/1")
    begun = await made.begin(Position(Why.TAIL, 9, cursor, seq=9), Epoch(1_700_000_000, 7, 6))
    assert (begun.cursor.last, begun.reset) == (5, False)
    assert said == ["stayed at 5", "of then"]
