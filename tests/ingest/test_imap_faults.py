"""What mail servers and networks do wrong, and that no mail is lost, doubled or half announced by it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from service.boxes import Lines
from service.bus import Bus
from service.clock import Clock, SystemClock
from service.contract import AccountState
from service.errors import Permanent, Transient
from service.imap import Session
from service.ingest import ImapSource
from service.ingest.from_imap import NAMELESS_S
from service.ingest.reading import SINGLE_TRIES, SUSPECTS_LIMIT
from service.ingest.source import Stirred
from tests.ingest.harness import Box, following, session_options
from tests.servers.clock import FakeClock
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader, Event, until
from tests.servers.proxy import FaultProxy, Way

SYSTEM = SystemClock()


def mail(number: int) -> bytes:
    return f"Subject: mail {number}\r\n\r\nbody {number}\r\n".encode()


def subjects_of(events: list[Event]) -> list[str]:
    return [event.body["subject"] for event in events]


@asynccontextmanager
async def opened(imap_stub: ImapStub, clock: Clock = SYSTEM) -> AsyncIterator[ImapSource]:
    """The stub's INBOX as a source that is not told to look at anything."""
    box = Box(imap_stub.port)
    lines = Lines(lambda: Session.open(session_options(box), clock=clock), limit=1, pause_s=lambda *_: 0.0, clock=clock)
    source = ImapSource(
        lines.place(0), host=box.host, username=box.user, mailbox="INBOX", idle_s=3600.0, poll_s=3600.0, clock=clock
    )
    await source.open()
    try:
        yield source
    finally:
        await source.close()


@pytest.mark.fault("A08")
@pytest.mark.parametrize("answer", ["OK done", "NO [SERVERBUG] cannot", None])
async def test_one_message_that_cannot_be_had_is_announced_as_such_and_the_next_flows(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, prefix: str, answer: str | None
) -> None:
    asked: list[str] = []

    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        wanted, _, items = arguments.partition(" ")
        if "BODY" not in items or 2 not in imap_stub.uids_of(wanted):
            return False
        asked.append(wanted)
        for uid in imap_stub.uids_of(wanted):
            if uid != 2:
                await connection.send(imap_stub.fetch(uid, body=True))
        if answer is None:
            connection.cut()
        else:
            await connection.send(f"{tag} {answer}\r\n")
        return True

    imap_stub.messages = {number: mail(number) for number in (1, 2, 3)}
    imap_stub.hooks["UID FETCH"] = fetch
    async with following(bus, Box(imap_stub.port)):
        events = await reader.wait_received(3)
        await until_dead(reader)
    assert [event.body.get("subject") for event in events] == ["mail 1", None, "mail 3"]
    assert asked.count("2") == SINGLE_TRIES == 3
    assert events[1].body["mailbus"]["problem"]["type"] == "unavailable"
    (letter,) = await reader.events("DEAD")
    assert letter.subject == f"{prefix}.dead.message"
    assert letter.headers["ce-id"] == events[1].headers["ce-id"]


@pytest.mark.fault("A08")
async def test_a_message_that_breaks_each_connection_is_passed_by_however_many_did_before(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    async def fetch(connection: Connection, _tag: str, arguments: str) -> bool:
        wanted, _, items = arguments.partition(" ")
        if "BODY" not in items or 2 not in imap_stub.uids_of(wanted):
            return False
        connection.cut()
        return True

    imap_stub.messages = {number: mail(number) for number in (1, 2, 3)}
    imap_stub.hooks["UID FETCH"] = fetch
    box = Box(imap_stub.port)
    # They went before they could be read once more.
    box.status.suspects = dict.fromkeys(range(1000, 1000 + SUSPECTS_LIMIT), 1)
    async with following(bus, box):
        events = await reader.wait_received(3)
    assert [event.body.get("subject") for event in events] == ["mail 1", None, "mail 3"]
    assert len(box.status.suspects) <= SUSPECTS_LIMIT


async def until_dead(reader: BusReader) -> None:
    for _ in range(200):
        if await reader.events("DEAD"):
            return
        await asyncio.sleep(0.02)
    pytest.fail("no dead letter")


@pytest.mark.fault("A09")
async def test_cut_at_every_byte_of_a_fetch_every_message_is_whole_and_there_once(
    dovecot: Dovecot,
    bus: Bus,
    reader: BusReader,
    prefix: str,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
) -> None:
    bodies = {f"mail {n}": f"body {n} ".encode() * 5 for n in range(1, 21)}
    await dovecot.append(prefix, [b"Subject: %b\r\n\r\n%b\r\n" % (k.encode(), v) for k, v in bodies.items()])
    proxy = await fault_proxy(dovecot.host, dovecot.imap)
    tries = 0
    # Greeting, login and survey take about 2.3 KB, the answer to the FETCH 2.5 KB: each life is cut further on.
    for cut_at in range(50, 10_000, 23):
        proxy.cut_each_after(cut_at)
        box = Box(proxy.port, prefix)
        async with following(bus, box):
            await until(lambda: bool(box.states) or box.status.state == "watching")  # noqa: B023
        tries += 1
        if not box.states:
            break
    assert tries > 100
    events = await reader.wait_received(20)
    assert subjects_of(events) == list(bodies)
    for event in events:
        value = next(iter(event.body["bodyValues"].values()))["value"]
        assert value.strip() == bodies[event.body["subject"]].decode().strip()


@pytest.mark.fault("A10")
async def test_shuffled_doubled_and_unasked_responses_put_no_mail_in_a_wrong_place(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        wanted, _, items = arguments.partition(" ")
        body = "BODY" in items
        for uid in [*reversed(imap_stub.uids_of(wanted)), *imap_stub.uids_of(wanted)]:
            await connection.send("* 1 FETCH (FLAGS (\\Deleted))\r\n")
            await connection.send(imap_stub.fetch(uid, body=body))
        await connection.send('* 9 FETCH (UID 99 FLAGS NIL INTERNALDATE "never" RFC822.SIZE NIL)\r\n')
        await connection.send(f"{tag} OK done\r\n")
        return True

    imap_stub.messages = {number: mail(number) for number in range(1, 6)}
    imap_stub.hooks["UID FETCH"] = fetch
    async with following(bus, Box(imap_stub.port)):
        events = await reader.wait_received(5)
    assert subjects_of(events) == [f"mail {n}" for n in range(1, 6)]
    assert [event.body["keywords"] for event in events] == [{"$seen": True}] * 5


@pytest.mark.fault("A12")
@pytest.mark.parametrize("lie", ["{4294967296}", "{-1}", "{99999}"])
async def test_a_lying_literal_costs_no_memory_and_only_its_own_message(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, lie: str
) -> None:
    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        wanted, _, items = arguments.partition(" ")
        if "BODY" not in items or 2 not in imap_stub.uids_of(wanted):
            return False
        await connection.send(f"* 2 FETCH (UID 2 BODY[] {lie}\r\nabc")
        if lie == "{99999}":
            connection.cut()
        return True

    imap_stub.messages = {number: mail(number) for number in (1, 2, 3)}
    imap_stub.hooks["UID FETCH"] = fetch
    async with following(bus, Box(imap_stub.port, message_limit=2_000_000)):
        events = await reader.wait_received(3)
    assert [event.body.get("subject") for event in events] == ["mail 1", None, "mail 3"]
    assert events[1].body["mailbus"]["problem"]["type"] == "unavailable"


async def test_a_size_that_is_a_lie_is_no_trouble(imap_stub: ImapStub, bus: Bus, reader: BusReader) -> None:
    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        if "BODY" in arguments:
            return False
        await connection.send("* 1 FETCH (UID 1 FLAGS () INTERNALDATE NIL RFC822.SIZE 3)\r\n")
        await connection.send(f"{tag} OK done\r\n")
        return True

    imap_stub.messages = {1: mail(1)}
    imap_stub.hooks["UID FETCH"] = fetch
    async with following(bus, Box(imap_stub.port)):
        (event,) = await reader.wait_received(1)
    assert event.body["subject"] == "mail 1"
    assert event.body["receivedAt"] is None


@pytest.mark.fault("A02")
async def test_a_server_that_says_bye_is_tried_again_and_its_reason_is_said(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.greeting = "* BYE under repair\r\n"
    imap_stub.messages = {1: mail(1)}
    box = Box(imap_stub.port)
    async with following(bus, box):
        await until(lambda: len(box.states) > 2)
        imap_stub.greeting = "* OK ready\r\n"
        await reader.wait_received(1)
    state, error = box.states[0]
    assert state is AccountState.DISCONNECTED
    assert "under repair" in str(error)


@pytest.mark.fault("A01")
async def test_mail_that_came_while_idle_was_dead_is_announced(
    dovecot: Dovecot,
    bus: Bus,
    reader: BusReader,
    prefix: str,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
) -> None:
    proxy, dead = await fault_proxy(dovecot.host, dovecot.imap), asyncio.Event()

    def watch(way: Way, chunk: bytes) -> bytes:
        # Who ends IDLE hears nothing more.
        if way is Way.TO_SERVER and chunk == b"DONE\r\n" and not dead.is_set():
            proxy.swallow()
            dead.set()
        return chunk

    proxy.watch = watch
    box = Box(proxy.port, prefix, idle_s=0.3, reply_s=0.5)
    async with following(bus, box):
        await asyncio.wait_for(dead.wait(), 30)
        await dovecot.append(prefix, [mail(1)])
        await until(lambda: any("IDLE is dead" in str(error) for _, error in box.states), what="a dead IDLE")
        proxy.heal()
        (event,) = await reader.wait_received(1)
    assert event.body["subject"] == "mail 1"


async def test_a_server_without_idle_is_polled(imap_stub: ImapStub, bus: Bus, reader: BusReader) -> None:
    imap_stub.capabilities = "IMAP4rev1"
    box = Box(imap_stub.port, poll_s=0.05)
    async with following(bus, box):
        await until(lambda: box.status.state == "watching")
        await imap_stub.deliver(1, mail(1))
        (event,) = await reader.wait_received(1)
    assert event.body["subject"] == "mail 1"
    assert not any("IDLE" in line for line in imap_stub.commands)


async def test_a_new_uidvalidity_begins_a_new_epoch(imap_stub: ImapStub, bus: Bus, reader: BusReader) -> None:
    imap_stub.messages = {1: mail(1)}
    async with following(bus, Box(imap_stub.port, initial="new")):
        await until(lambda: "EXAMINE" in " ".join(imap_stub.commands))
        await imap_stub.deliver(2, mail(2))
        await reader.wait_received(1)
    imap_stub.uidvalidity = 8
    imap_stub.messages = {1: mail(1), 2: mail(2)}
    box = Box(imap_stub.port, initial="new")
    async with following(bus, box):
        await until(lambda: box.status.state == "watching")
        await imap_stub.deliver(3, mail(3))
        events = await reader.wait_received(2)
    resets = [event.body for event in await reader.events() if event.kind == "reset"]
    assert [reset["reason"] for reset in resets] == ["start", "uidvalidity"]
    assert (resets[1]["uidvalidity"], resets[1]["oldUidvalidity"]) == (8, 7)
    assert subjects_of(events) == ["mail 2", "mail 3"]


@pytest.mark.fault("A18")
@pytest.mark.parametrize("listed", [True, False])
async def test_a_mailbox_that_is_listed_and_not_there_for_a_moment_is_opened_again_soon(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, listed: bool
) -> None:
    refusals = ["NO [NONEXISTENT] no such mailbox", "NO Mailbox does not exist"]

    async def examine(connection: Connection, tag: str, _arguments: str) -> bool:
        if not refusals:
            return False
        await connection.send(f"{tag} {refusals.pop()}\r\n")
        return True

    imap_stub.messages = {1: mail(1)}
    imap_stub.hooks["EXAMINE"] = examine
    box = Box(imap_stub.port, listed=listed)
    async with following(bus, box):
        await reader.wait_received(1)
    # Where settings name it and nobody has seen it, somebody has to look: minutes pass before it is tried again.
    expected = AccountState.DISCONNECTED if listed else AccountState.DEGRADED
    assert [state for state, _ in box.states] == [expected, expected]


@pytest.mark.fault("A18")
async def test_a_mailbox_that_settings_name_and_that_was_there_is_looked_for_again_soon_for_a_while(
    imap_stub: ImapStub,
) -> None:
    async def refuse(connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(f"{tag} NO [NONEXISTENT] no such mailbox\r\n")
        return True

    clock = FakeClock()
    async with opened(imap_stub, clock) as source:
        for _ in range(2):
            imap_stub.hooks["EXAMINE"] = refuse
            for passed_s in (0.0, NAMELESS_S - 1):
                await clock.advance(passed_s)
                with pytest.raises(Transient, match="no such mailbox"):
                    await source.open()
            # By now somebody has to look.
            await clock.advance(1)
            with pytest.raises(Permanent, match="no such mailbox"):
                await source.open()
            del imap_stub.hooks["EXAMINE"]
            await source.open()


@pytest.mark.fault("A03")
async def test_mail_that_comes_between_opening_and_the_first_look_does_not_wait_for_the_next_one(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    async def examine(connection: Connection, tag: str, _arguments: str) -> bool:
        connection.selected = True
        await connection.send(
            f"* 1 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n* OK [UIDNEXT 2] n\r\n{tag} OK done\r\n* 2 EXISTS\r\n"
        )
        imap_stub.messages[2] = mail(2)
        return True

    imap_stub.messages = {1: mail(1)}
    imap_stub.hooks["EXAMINE"] = examine
    async with following(bus, Box(imap_stub.port, idle_s=3600.0)):
        events = await reader.wait_received(2, limit_s=10)
    assert subjects_of(events) == ["mail 1", "mail 2"]


@pytest.mark.fault("A03")
async def test_mail_that_is_there_already_while_uidnext_is_of_the_moment_before_does_not_wait(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages, imap_stub.uidnext = {1: mail(1), 2: mail(2)}, 2
    async with following(bus, Box(imap_stub.port, idle_s=3600.0)):
        events = await reader.wait_received(2, limit_s=10)
    assert subjects_of(events) == ["mail 1", "mail 2"]


@pytest.mark.fault("A03")
async def test_mail_that_comes_after_opening_is_not_taken_for_one_that_is_gone_since_the_last_look(
    imap_stub: ImapStub,
) -> None:
    async def examine(connection: Connection, tag: str, _arguments: str) -> bool:
        connection.selected = True
        await connection.send(
            f"* 1 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n* OK [UIDNEXT 3] n\r\n{tag} OK done\r\n* 2 EXISTS\r\n"
        )
        return True

    imap_stub.messages = {1: mail(1), 2: mail(2)}
    async with opened(imap_stub) as source:
        assert len(await source.survey(1, None)) == 2
        await source.close()
        # One is gone, and one comes before anything is asked.
        imap_stub.hooks["EXAMINE"] = examine
        assert (await source.open()).exists == 1
        assert await asyncio.wait_for(source.wait(3600.0), 10) is not None


@pytest.mark.parametrize(
    ("behind", "stirred"),
    [
        ("* 1 EXPUNGE", Stirred(gone=True, flags=False, numbers=frozenset())),
        ("* 1 FETCH (FLAGS (\\Flagged))", Stirred(gone=False, flags=True, numbers=frozenset({1}))),
    ],
)
async def test_what_becomes_of_mail_just_after_opening_is_noticed_although_it_came_with_the_answer(
    imap_stub: ImapStub, behind: str, stirred: Stirred
) -> None:
    async def examine(connection: Connection, tag: str, _arguments: str) -> bool:
        connection.selected = True
        # Before the answer it may be of the mailbox that was open until now.
        await connection.send(
            "* 2 FETCH (FLAGS ())\r\n* 2 EXPUNGE\r\n* OK [CLOSED] now the other\r\n"
            "* 2 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n* OK [UIDNEXT 3] n\r\n"
            f"{tag} OK done\r\n{behind}\r\n"
        )
        return True

    imap_stub.messages, imap_stub.hooks["EXAMINE"] = {1: mail(1), 2: mail(2)}, examine
    async with opened(imap_stub) as source:
        assert await asyncio.wait_for(source.wait(3600.0), 10) is not None
        assert source.stirred() == stirred
