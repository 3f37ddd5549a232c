"""What is known outlives everything: restarts, retention, a purge, an older version, another writer, a rollback."""

import asyncio
import threading

import msgspec
import pytest
from nats.js.errors import NotFoundError

from service.bus import Bus, OutMessage
from service.clock import SystemClock
from service.contract import CURSOR_HEADER, STATE_HEADER, AccountState
from service.ingest import Alone, AnnounceOptions, Copies, Lineage, Recalled, memory
from service.ingest.cursor import Before, Cursor, copy_key, dump_copy, load_copy, load_cursor
from service.ingest.marks import MARK_BYTES, NO_MARK
from service.ingest.state import State, load_state
from service.parsing import Raw
from tests.ingest.harness import Box, following
from tests.ingest.parts import Parts, parts_of
from tests.ingest.view import mail, seen, watching
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import BusReader, until

KEY = copy_key("box", "INBOX")


@pytest.fixture
def server(imap_stub: ImapStub) -> ImapStub:
    """A mailbox of five, which tells nothing of changes."""
    imap_stub.messages = {n: mail(n) for n in range(1, 6)}
    return imap_stub


async def objects(bus: Bus) -> list[str]:
    store = await bus.nc.jetstream().object_store(bus.subjects.state)
    try:
        return [info.name for info in await store.list()]
    except NotFoundError:
        return []


async def cursor_of(bus: Bus) -> Cursor:
    tail = await bus.log.tail(bus.subjects.mailbox_filter("box", "INBOX"))
    assert tail is not None
    return load_cursor(tail.headers[CURSOR_HEADER])


async def copied(bus: Bus) -> Cursor:
    entry = await bus.key_value(bus.subjects.cursors).get(KEY)
    assert entry is not None
    copy = load_copy(entry.value)
    assert copy is not None
    return copy.cursor


def degraded(box: Box) -> list[str]:
    return [str(error) for state, error in box.states if state is AccountState.DEGRADED]


async def changed_away(bus: Bus, reader: BusReader, server: ImapStub, *, known: set[int]) -> Box:
    """Number 1 is flagged, number 2 goes, nobody listens; then a start says so."""
    server.flags[1] = "\\Flagged"
    del server.messages[2]
    box = Box(server.port)
    async with following(bus, box):
        await watching(box)
        left = {n: {"$seen"} for n in known} | {1: {"$flagged"}}
        del left[2]
        await seen(reader, left)
    return box


async def test_after_a_restart_the_log_alone_tells_what_is_known(server: ImapStub, bus: Bus, reader: BusReader) -> None:
    async with following(bus, Box(server.port)):
        await reader.wait_received(5)
    assert (await cursor_of(bus)).events == 6
    box = await changed_away(bus, reader, server, known={1, 2, 3, 4, 5})
    assert await objects(bus) == []
    assert not box.states


async def test_snapshots_are_written_named_and_the_older_ones_go(
    server: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "IDLE_EVENTS_LIMIT", 3)
    async with following(bus, Box(server.port)):
        await reader.wait_received(5)
        await until_saved(bus, 1)
        for n in range(6, 16):
            await server.deliver(n, mail(n))
            await reader.wait_received(n)
    # The copy names the newest; the log named it with its next commit, and then the older one went.
    names = await objects(bus)
    named = (await copied(bus)).state
    assert named is not None
    assert named.id in names
    assert len(names) <= 2
    box = await changed_away(bus, reader, server, known=set(range(1, 16)))
    assert not box.states
    async with following(bus, Box(server.port)):
        for n in range(16, 20):
            await server.deliver(n, mail(n))
            await reader.wait_received(n)
    assert len(await objects(bus)) <= 2


class Kept(Alone):
    """A mailbox of an account that keeps what names have left."""

    def __init__(self, lineage: Lineage) -> None:
        self._lineage = lineage

    async def stayed(self, cursor: Cursor) -> list[str]:
        return await self._lineage.stayed("INBOX", cursor)

    async def settled(self, snapshot: str) -> bool:
        return await self._lineage.settled("INBOX", snapshot)


@pytest.mark.parametrize("taken", [True, False])
async def test_a_snapshot_that_others_recognise_by_outlives_kills_and_newer_ones(
    server: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    monkeypatch.setattr(memory, "IDLE_EVENTS_LIMIT", 3)
    lineage = Lineage(bus, Copies(bus.key_value(bus.subjects.cursors), SystemClock()), "box")
    async with following(bus, Box(server.port, kinship=Kept(lineage))):
        await reader.wait_received(5)
        await until_saved(bus, 1)
    (snapshot,) = await objects(bus)
    # Killed when it was about to leave its epoch, in which it is still; another one had gone on by it already.
    await lineage.left("INBOX", await copied(bus), 6)
    if taken:
        await lineage.taken("Heir", Before(snapshot, 7, 1, 0))
    for more in (range(6, 12), range(12, 18)):
        box = Box(server.port, kinship=Kept(lineage))
        async with following(bus, box):
            for n in more:
                await server.deliver(n, mail(n))
                await reader.wait_received(n)
        assert not box.states
    there = await objects(bus)
    assert (snapshot in there) == taken
    assert len(there) <= 2 + taken


async def until_saved(bus: Bus, count: int) -> None:
    for _ in range(200):
        if len(await objects(bus)) >= count:
            return
        await asyncio.sleep(0.02)
    pytest.fail("no snapshot")


async def test_a_snapshot_serves_when_the_events_before_it_are_gone(
    server: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "IDLE_EVENTS_LIMIT", 3)
    async with following(bus, Box(server.port)):
        await reader.wait_received(5)
        await until_saved(bus, 1)
    await bus.nc.jetstream().purge_stream(f"{bus.subjects.prefix.upper()}_IN")
    server.flags[1] = "\\Flagged"
    del server.messages[2]
    box = Box(server.port)
    async with following(bus, box):
        await watching(box)
        await until(lambda: box.status.announced == 2)
    events = await reader.events()
    assert sorted((event.kind, event.headers[STATE_HEADER].split()[0]) for event in events) == [
        ("changed", "1"),
        ("removed", "2"),
    ]
    assert not box.states


async def test_a_snapshot_is_unpacked_beside_the_event_loop(
    server: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop: list[bool] = []

    def load(data: bytes, owner: str) -> State | None:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return load_state(data, owner)

    monkeypatch.setattr(memory, "IDLE_EVENTS_LIMIT", 3)
    monkeypatch.setattr(memory, "load_state", load)
    async with following(bus, Box(server.port)):
        await reader.wait_received(5)
        await until_saved(bus, 1)
    await changed_away(bus, reader, server, known={1, 2, 3, 4, 5})
    assert on_loop
    assert not any(on_loop)


@pytest.mark.fault("A15")
async def test_without_its_snapshot_the_log_tells_what_is_known_as_long_as_it_has_all(
    server: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "IDLE_EVENTS_LIMIT", 3)
    async with following(bus, Box(server.port)):
        await reader.wait_received(5)
        await until_saved(bus, 1)
    for name in await objects(bus):
        await bus.blobs(bus.subjects.state).delete(name)
    box = await changed_away(bus, reader, server, known={1, 2, 3, 4, 5})
    assert not box.states


@pytest.mark.fault("A15")
@pytest.mark.parametrize("snapshot_too", [False, True])
async def test_what_is_lost_is_said_once_and_the_rest_is_compared_in_full(
    server: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch, snapshot_too: bool
) -> None:
    stream = f"{bus.subjects.prefix.upper()}_IN"
    if snapshot_too:
        monkeypatch.setattr(memory, "IDLE_EVENTS_LIMIT", 3)
    async with following(bus, Box(server.port)):
        await reader.wait_received(5)
        if snapshot_too:
            await until_saved(bus, 1)
    if snapshot_too:
        for name in await objects(bus):
            await bus.blobs(bus.subjects.state).delete(name)
        await bus.nc.jetstream().purge_stream(stream, seq=6)
    else:
        # An erasure: the event of number 3 is gone.
        await bus.nc.jetstream().delete_msg(stream, 4)
    server.flags[1], server.flags[3] = "\\Flagged", "\\Flagged"
    del server.messages[2]
    box = Box(server.port)
    async with following(bus, box):
        await watching(box)
    assert len(degraded(box)) == 1
    assert "incomplete" in degraded(box)[0]
    told = [
        (event.kind, event.headers[STATE_HEADER].split()[0])
        for event in await reader.events()
        if event.kind in {"changed", "removed"}
    ]
    # Of what is not known any more nobody can say that it went or changed; what is there is watched again.
    assert sorted(told) == ([] if snapshot_too else [("changed", "1"), ("removed", "2")])
    again = Box(server.port)
    async with following(bus, again):
        await watching(again)
        server.flags[4] = ""
        await server.tell("* 3 FETCH (FLAGS ())")
        await until(lambda: again.status.announced == 1)
    assert not degraded(again)


@pytest.mark.fault("F10")
async def test_after_an_older_version_what_is_there_is_taken_over_in_silence(
    server: ImapStub, bus: Bus, reader: BusReader
) -> None:
    class Older(msgspec.Struct, omit_defaults=True):
        source: str
        uidvalidity: int
        last: int
        line: int
        writer: str
        first: int = 0
        fingerprint: str = ""

    async with following(bus, Box(server.port)):
        await reader.wait_received(5)
    # It reads our cursor, keeps what it knows of it, and announces number 6 without a word for the known state.
    newer = await cursor_of(bus)
    older = msgspec.structs.replace(msgspec.json.decode(msgspec.json.encode(newer), type=Older), last=6, fingerprint="")
    headers = {CURSOR_HEADER: msgspec.json.encode(older).decode(), "ce-id": "x", "ce-type": "mailbus.received"}
    event = OutMessage(bus.subjects.event("box", "INBOX", "received"), b"{}", headers)
    filter_subject = bus.subjects.mailbox_filter("box", "INBOX")
    await bus.log.commit([event], filter_subject=filter_subject, fence=6)
    server.messages[6] = mail(6)
    box = Box(server.port)
    async with following(bus, box):
        await watching(box)
        server.flags[6] = ""
        await server.tell("* 6 FETCH (FLAGS ())")
        await until(lambda: box.status.announced == 1)
    last = (await reader.events())[-1]
    assert (last.kind, last.headers[STATE_HEADER]) == ("changed", "6 -")
    assert not box.states
    box = Box(server.port)
    async with following(bus, box):
        await watching(box)
    assert not box.states
    assert box.status.announced == 0


async def test_two_writers_in_turn_know_the_same(server: ImapStub, bus: Bus, reader: BusReader) -> None:
    async with following(bus, Box(server.port, writer="one/1")):
        await reader.wait_received(5)
    for n, writer in enumerate(["two/1", "one/2", "two/1"], 6):
        async with following(bus, Box(server.port, writer=writer)):
            await server.deliver(n, mail(n))
            await reader.wait_received(n)
    await changed_away(bus, reader, server, known=set(range(1, 9)))


def changed(bus: Bus, number: int) -> OutMessage:
    """An event of ours: nothing of mail 1 is different."""
    headers = {STATE_HEADER: "1 $seen", "ce-id": f"x{number}", "ce-type": "mailbus.changed"}
    return OutMessage(bus.subjects.event("box", "INBOX", "changed"), b"{}", headers)


async def test_two_that_take_turns_in_one_process_name_the_snapshot_that_is_there(
    server: ImapStub, bus: Bus, reader: BusReader
) -> None:
    async with following(bus, Box(server.port)):
        await reader.wait_received(5)
    one, two = (parts_of(bus, AnnounceOptions(0, bus.max_payload, Raw.PROBLEM), account="box") for _ in range(2))
    number = 0

    async def turn(parts: Parts, *, saves: bool) -> None:
        nonlocal number
        number += 1
        position = await parts.events.resume(contest=True)
        assert position.cursor is not None
        cursor = position.cursor
        assert await parts.memory.recall(cursor, position.seq, position.older) is Recalled.WHOLE
        cursor = await parts.memory.save(cursor) if saves else cursor
        await parts.memory.commit([changed(bus, number)], cursor)
        await parts.copies.flush()

    for parts, saves in ((one, True), (two, False), (two, True), (one, False), (one, True), (two, False), (two, True)):
        await turn(parts, saves=saves)
        named = (await cursor_of(bus)).state
        assert named is not None
        assert [named.id] == await objects(bus)
    state = load_state(await bus.blobs(bus.subjects.state).get(named.id), f"{KEY} ")
    assert state is not None
    marks = state.marks.column(state.known)
    assert NO_MARK not in {marks[at : at + MARK_BYTES] for at in range(0, len(marks), MARK_BYTES)}
    assert len(state.known) == 5


@pytest.mark.fault("D19")
async def test_strangers_among_the_events_make_nothing_unknown(server: ImapStub, bus: Bus, reader: BusReader) -> None:
    async with following(bus, Box(server.port)):
        await reader.wait_received(5)
    for kind in ("received", "reset", "removed", "changed"):
        await bus.publish(bus.subjects.event("box", "INBOX", kind), b"{}", {"ce-id": "x"})
    server.flags[1] = "\\Flagged"
    del server.messages[2]
    box = Box(server.port)
    async with following(bus, box):
        await until(lambda: box.status.announced == 2)
    assert not [error for error in degraded(box) if "incomplete" in error]
    ours = [event for event in await reader.events() if STATE_HEADER in event.headers]
    assert sorted((event.kind, event.headers[STATE_HEADER].split()[0]) for event in ours[6:]) == [
        ("changed", "1"),
        ("removed", "2"),
    ]


@pytest.mark.fault("D07")
async def test_after_a_rollback_changes_are_told_again_and_never_under_an_id_that_meant_another(
    server: ImapStub, bus: Bus, reader: BusReader
) -> None:
    async with following(bus, Box(server.port)):
        await reader.wait_received(5)
        await seen_by_flag(server, reader, "\\Flagged", {"$flagged"})
        await seen_by_flag(server, reader, "", set())
    first = await reader.events()
    # The log loses the last two events: number 1 was $flagged, then nothing.
    copy_entry = await bus.key_value(bus.subjects.cursors).get(KEY)
    assert copy_entry is not None
    stream = f"{bus.subjects.prefix.upper()}_IN"
    kept = [await bus.log.get(seq) for seq in range(1, 7)]
    await bus.nc.jetstream().purge_stream(stream)
    copy = load_copy(copy_entry.value)
    assert copy is not None
    for message in kept:
        assert message is not None
        headers = {k: v for k, v in message.headers.items() if not k.startswith("Nats-")}
        await bus.publish(message.subject, message.payload, headers)
    # As if the stream had never gone further than what was put back.
    beyond = msgspec.structs.replace(copy, seq=1000)
    await bus.key_value(bus.subjects.cursors).update(KEY, dump_copy(beyond), copy_entry.revision)
    server.flags[1] = "\\Flagged"
    box = Box(server.port)
    async with following(bus, box):
        await until(lambda: box.status.announced == 1)
    last = (await reader.events())[-1]
    assert last.body["keywords"] == {"$flagged": True}
    # The same words as an event that was lost; to a consumer who saw both of the lost ones it is news.
    assert last.headers["ce-id"] not in {event.headers["ce-id"] for event in first}


async def seen_by_flag(server: ImapStub, reader: BusReader, flags: str, keywords: set[str]) -> None:
    server.flags[1] = flags
    await server.tell(f"* 1 FETCH (FLAGS ({flags}))")
    await seen(reader, {1: keywords} | {n: {"$seen"} for n in range(2, 6)})
