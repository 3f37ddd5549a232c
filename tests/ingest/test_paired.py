"""POP3 stands in where it shares no number with IMAP: each mail once, by whichever way; ids that IMAP makes good."""

import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from service.bus import Bus, KeyValue
from service.contract import NUMBERS_FROM, AccountState, place_of
from service.errors import Transient
from service.ingest import Desks, Lesson
from service.pop3 import session
from tests.ingest.away import Away, by_imap, learner, looked, returned, standing_in
from tests.ingest.harness import Box, following
from tests.ingest.maildrop import kinds, subjects
from tests.ingest.view import view, watching
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import BusReader, Event, until
from tests.servers.pop3_stub import Mail, Pop3Connection, Pop3Stub

pytestmark = pytest.mark.fault("B07")
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=30)


def body(number: int, at: datetime = NOW) -> bytes:
    """As a mail server leaves it to both protocols."""
    received = f"Received: from a by b with ESMTP id {number}; {format_datetime(at)}\r\n"
    header = f"{received}Message-ID: <{number}@example.org>\r\nSubject: mail\r\n {number}\r\n\r\n"
    return header.encode() + b"x" * number + b"\r\n"


def drop(numbers: range, at: datetime = NOW) -> list[Mail]:
    return [Mail(f"id-{number}", body(number, at)) for number in numbers]


def arrive(imap: ImapStub, pop3: Pop3Stub, numbers: range) -> None:
    """Mail that both ways show."""
    imap.messages |= {number: body(number) for number in numbers}
    pop3.mails += drop(numbers)


def uids(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.kind, place.uid) for event in events if (place := place_of(event.body.get("id", ""))) is not None]


@pytest.fixture
async def learnt(imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus) -> None:
    """Two mails that both ways have shown, and one that only IMAP has, since."""
    arrive(imap_stub, pop3_stub, range(1, 3))
    assert await by_imap(bus, imap_stub.port, pop3_stub.port) is Lesson.PROVED
    arrive(imap_stub, pop3_stub, range(3, 4))
    await by_imap(bus, imap_stub.port)


@pytest.mark.usefixtures("learnt")
async def test_only_what_neither_way_has_told_is_announced_and_imap_gives_it_its_uid(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    arrive(imap_stub, pop3_stub, range(4, 6))
    imap_stub.flags = {4: r"\Seen"}
    async with standing_in(bus, pop3_stub.port) as away:
        await reader.wait_received(5)
        await looked(away)
    assert not away.states
    # What IMAP had told was known by its header, and cost no download.
    assert "TOP 3 10" in pop3_stub.commands
    assert [line for line in pop3_stub.commands if line.startswith("RETR")] == ["RETR 4", "RETR 5"]
    arrive(imap_stub, pop3_stub, range(6, 7))
    async with following(bus, Box(imap_stub.port, prints=True, poll_s=0.05)) as box:
        await reader.wait_received(6)
        await watching(box)
        imap_stub.flags = {4: r"\Seen", 5: r"\Flagged"}
        del imap_stub.messages[4]
        await until(lambda: box.desk.numbers is not None)
        await box.desk.ask()
        assert box.desk.uid_of(7, NUMBERS_FROM + 2) == 5
        assert box.desk.uid_of(7, NUMBERS_FROM + 1) == 0
    events = await reader.events()
    assert subjects(events) == [f"mail {n}" for n in range(1, 7)]
    first, second = NUMBERS_FROM + 1, NUMBERS_FROM + 2
    assert uids(events[4:]) == [
        ("received", first),
        ("received", second),
        ("received", 6),
        ("changed", first),
        ("changed", second),
        ("removed", first),
        ("changed", second),
    ]
    assert events[-1].body["keywords"] == {"$flagged": True}
    assert kinds(events).count("reset") == 1


@pytest.mark.usefixtures("learnt")
async def test_a_session_that_ended_before_its_mail_was_read_tells_it_once(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SILENT_S", 0.0)
    arrive(imap_stub, pop3_stub, range(4, 6))

    async def noop(connection: Pop3Connection, arguments: str) -> bool:
        # By the time that it is looked again there is more.
        pop3_stub.hooks.clear()
        arrive(imap_stub, pop3_stub, range(6, 7))
        connection.cut()
        return True

    pop3_stub.hooks["NOOP"] = noop
    async with standing_in(bus, pop3_stub.port) as away:
        await reader.wait_received(6)
        await looked(away)
    assert not pop3_stub.hooks
    assert not away.states
    await by_imap(bus, imap_stub.port)
    assert subjects(await reader.events()) == [f"mail {n}" for n in range(1, 7)]


@pytest.mark.usefixtures("learnt")
async def test_a_mail_that_another_client_deletes_in_the_middle_alarms_nobody(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    arrive(imap_stub, pop3_stub, range(4, 7))

    async def retr(connection: Pop3Connection, arguments: str) -> bool:
        assert connection.drop is not None
        if connection.drop[int(arguments) - 1].uidl != "id-5":
            return False
        pop3_stub.mails = [one for one in pop3_stub.mails if one.uidl != "id-5"]
        imap_stub.messages.pop(5, None)
        await connection.send("-ERR no such message\r\n")
        return True

    pop3_stub.hooks["RETR"] = retr
    async with standing_in(bus, pop3_stub.port) as away:
        await reader.wait_received(5)
        await looked(away)
    assert not away.states
    await by_imap(bus, imap_stub.port)
    assert subjects(await reader.events()) == [f"mail {n}" for n in (1, 2, 3, 4, 6)]


@pytest.mark.parametrize("verb", ["TOP", "RETR"])
@pytest.mark.usefixtures("learnt")
async def test_a_mail_that_breaks_the_connection_each_time_waits_for_imap_and_the_others_come(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, verb: str
) -> None:
    arrive(imap_stub, pop3_stub, range(4, 7))
    pop3_stub.capabilities = "TOP UIDL USER"
    pop3_stub.commands.clear()
    cuts = 0

    async def breaks(connection: Pop3Connection, arguments: str) -> bool:
        nonlocal cuts
        assert connection.drop is not None
        if connection.drop[int(arguments.split()[0]) - 1].uidl != "id-5":
            return False
        cuts += 1
        connection.cut()
        return True

    pop3_stub.hooks[verb] = breaks
    async with standing_in(bus, pop3_stub.port) as away:
        await reader.wait_received(5)
        await looked(away)
    assert cuts == 3
    # What the first connection showed is not asked of the next ones.
    assert verb == "RETR" or pop3_stub.commands.count("TOP 4 10") == 1
    assert subjects(await reader.events()) == [f"mail {n}" for n in (1, 2, 3, 4, 6)]
    await by_imap(bus, imap_stub.port)
    assert sorted(subjects(await reader.events())) == [f"mail {n}" for n in range(1, 7)]


@pytest.mark.usefixtures("learnt")
async def test_a_number_that_imap_has_not_heard_of_is_no_mail_that_is_gone(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    desks, first = Desks(), NUMBERS_FROM + 1
    async with following(bus, returned(imap_stub.port, desk=desks.desk("INBOX"))) as box:
        await watching(box)
    assert desks.uid_of("INBOX", 7, first) == 0
    arrive(imap_stub, pop3_stub, range(4, 5))
    async with standing_in(bus, pop3_stub.port) as away:
        await reader.wait_received(4)
        assert away.memory is not None
        desks.gives("INBOX", away.memory)
        await looked(away)
    # IMAP's memory is as it was before the outage, and nobody follows the mailbox yet.
    with pytest.raises(Transient, match="not heard"):
        desks.uid_of("INBOX", 7, first)
    assert desks.uid_of("INBOX", 7, first + 1) == 0
    async with following(bus, returned(imap_stub.port, desk=desks.desk("INBOX"))) as box:
        await watching(box)
        await box.desk.caught_up()
        assert desks.uid_of("INBOX", 7, first) == 4
        del imap_stub.messages[4]
        await box.desk.ask()
        assert desks.uid_of("INBOX", 7, first) == 0


@pytest.mark.usefixtures("learnt")
async def test_in_the_next_outage_what_the_last_one_told_is_known(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    told = 3
    for first in (4, 6, 8):
        arrive(imap_stub, pop3_stub, range(first, first + 1))
        told += 1
        async with standing_in(bus, pop3_stub.port) as away:
            await reader.wait_received(told)
            await looked(away)
        arrive(imap_stub, pop3_stub, range(first + 1, first + 2))
        await by_imap(bus, imap_stub.port)
        told += 1
    # Without IMAP's return in between, too.
    async with standing_in(bus, pop3_stub.port) as away:
        await looked(away)
    pop3_stub.mails += drop(range(10, 11))
    async with standing_in(bus, pop3_stub.port) as away:
        await reader.wait_received(10)
        await looked(away)
    async with standing_in(bus, pop3_stub.port) as away:
        await looked(away)
    assert subjects(await reader.events()) == [f"mail {n}" for n in range(1, 11)]


@pytest.mark.usefixtures("learnt")
async def test_what_is_gone_when_imap_returns_is_removed_under_its_id(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails += drop(range(4, 6))
    async with standing_in(bus, pop3_stub.port):
        await reader.wait_received(5)
    imap_stub.messages[5] = body(5)
    await by_imap(bus, imap_stub.port)
    await by_imap(bus, imap_stub.port)
    events = await reader.events()
    assert sorted(uids(events[6:])) == [("changed", NUMBERS_FROM + 2), ("removed", NUMBERS_FROM + 1)]
    assert subjects(events) == [f"mail {n}" for n in range(1, 6)]


@pytest.mark.usefixtures("learnt")
async def test_of_mails_that_are_the_same_as_many_are_known_as_were_told(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages[4] = body(4)
    pop3_stub.mails += [Mail("one", body(4)), Mail("another", body(4))]
    await by_imap(bus, imap_stub.port)
    async with standing_in(bus, pop3_stub.port) as away:
        await reader.wait_received(5)
        await looked(away)
    imap_stub.messages[5] = body(4)
    await by_imap(bus, imap_stub.port)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 3", "mail 4", "mail 4"]
    assert uids(events)[-1] == ("changed", NUMBERS_FROM + 1)


@pytest.mark.usefixtures("learnt")
async def test_where_all_unique_ids_change_old_mail_waits_for_imap(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    old = [Mail(f"other-{n}", body(n, LONG_AGO)) for n in range(50, 60)]
    undated = [Mail("undated", b"Message-ID: <u@example.org>\r\nSubject: mail u\r\n\r\n")]
    pop3_stub.mails = old + undated + drop(range(4, 5))
    async with standing_in(bus, pop3_stub.port) as away:
        await reader.wait_received(4)
        await looked(away)
    assert subjects(await reader.events()) == [f"mail {n}" for n in range(1, 5)]


async def test_where_the_two_show_other_headers_pop3_does_not_stand_in(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages = {1: body(1)}
    pop3_stub.mails = [Mail("x", b"Received: by another; now\r\n" + body(1))]
    assert await by_imap(bus, imap_stub.port, pop3_stub.port) is Lesson.NOTHING
    assert not await learner(bus, Away(pop3_stub.port)).is_proved()
    async with standing_in(bus, pop3_stub.port) as away:
        await until(lambda: bool(away.states))
    assert away.states[0][0] is AccountState.DEGRADED
    assert "was not learnt" in str(away.states[0][1])


async def test_where_ids_are_made_of_uids_nothing_has_to_be_learnt(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages = {1: body(1)}
    pop3_stub.mails = [Mail(f"{1:08x}{7:08x}", body(1))]
    assert await by_imap(bus, imap_stub.port, pop3_stub.port) is Lesson.LINKED


@pytest.mark.usefixtures("learnt")
async def test_a_lesson_that_cannot_be_forgotten_leaves_the_maildrop_to_others(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server makes its ids of UIDs from now on.
    pop3_stub.mails = [Mail(f"{n:08x}{7:08x}", body(n)) for n in (1, 2)]
    one = learner(bus, Away(pop3_stub.port))

    async def nothing() -> None: ...

    async def lost(_records: KeyValue, _key: str) -> None:
        raise Transient("no answer", where="NATS")

    with monkeypatch.context() as patch:
        patch.setattr(KeyValue, "delete", lost)
        with pytest.raises(Transient):
            await one.learn(nothing)
    assert await one.learn(nothing) is Lesson.LINKED
    assert not await one.is_proved()


@pytest.mark.usefixtures("learnt")
async def test_a_lesson_is_of_one_epoch(imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader) -> None:
    imap_stub.uidvalidity = 8
    async with following(bus, Box(imap_stub.port, prints=True, initial="new")) as box:
        await watching(box)
        for number in range(4, 6):
            imap_stub.messages[number] = body(number)
            await box.desk.caught_up()
    async with standing_in(bus, pop3_stub.port) as away:
        await until(lambda: bool(away.states))
    assert "was not learnt" in str(away.states[0][1])


async def test_nothing_is_looked_at_again_where_nothing_came(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    arrive(imap_stub, pop3_stub, range(1, 3))
    assert await by_imap(bus, imap_stub.port, pop3_stub.port) is Lesson.PROVED
    pop3_stub.commands.clear()
    assert await by_imap(bus, imap_stub.port, pop3_stub.port) is Lesson.PROVED
    assert not pop3_stub.commands


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.usefixtures("learnt")
@pytest.mark.fault("D01")
async def test_ended_at_every_step_of_the_way_back_nothing_is_told_twice(
    imap_stub: ImapStub, pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    stop_at = 0

    def step(name: str) -> None:
        names.append(name)
        if len(names) == stop_at:
            raise Killed

    for module in list(sys.modules.values()):
        if module.__name__.startswith("service.") and hasattr(module, "step") and "observe" not in module.__name__:
            monkeypatch.setattr(module, "step", step)
    imap_stub.flags = dict.fromkeys(range(4, 200), r"\Seen")
    told, uid = 3, 4

    async def outage() -> None:
        """One mail that POP3 tells, one more that is gone when IMAP is back; then one that IMAP tells."""
        nonlocal told, uid
        pop3_stub.mails += drop(range(uid, uid + 2))
        async with standing_in(bus, pop3_stub.port):
            await reader.wait_received(told + 2)
        imap_stub.messages |= {uid: body(uid), uid + 2: body(uid + 2)}
        told, uid = told + 3, uid + 3
        names.clear()

    await outage()
    await by_imap(bus, imap_stub.port)
    steps = len(names)
    assert {"fetch.done", "commit.done", "compare.done"} <= set(names)
    for number in range(1, steps + 1):
        pop3_stub.mails += drop(range(uid - 1, uid))
        await outage()
        stop_at = number
        with pytest.raises((BaseExceptionGroup, Killed)):
            await by_imap(bus, imap_stub.port)
        stop_at = 0
        await by_imap(bus, imap_stub.port)
    found = await view(reader)
    gone = range(5, uid, 3)
    assert len(found.messages) == uid - 1 - len(gone)
    assert subjects(await reader.events()) == [f"mail {n}" for n in range(1, uid)]
    removed = [number for kind, number in found.told if kind == "removed"]
    assert removed == [NUMBERS_FROM + 2 * n for n in range(1, steps + 2)]
