"""What servers, networks and processes do wrong while changes are told: none is lost, none is told twice."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from service.bus import Bus
from service.contract import AccountState
from service.ingest import compare
from tests.ingest.harness import Box, following
from tests.ingest.view import View, act, mail, quick, seen, view, watching
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader, until
from tests.servers.proxy import FaultProxy

MODSEQ = "IMAP4rev1 IDLE LITERAL+ ESEARCH CONDSTORE"


SEEN = frozenset({"$seen"})
PLAIN: frozenset[str] = frozenset()


@pytest.mark.fault("A14")
@pytest.mark.parametrize("habit", ["qresync", "condstore", "snapshot"])
async def test_cut_off_after_any_batch_of_many_changes_the_rest_is_told_later(
    dovecot_that: Callable[[str], Dovecot],
    bus: Bus,
    reader: BusReader,
    prefix: str,
    habit: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, count = dovecot_that(habit), 60
    await server.append(prefix, [mail(n) for n in range(1, count + 1)])
    async with following(bus, quick(server, prefix)):
        await seen(reader, {n: set() for n in range(1, count + 1)})
    monkeypatch.setattr(compare, "COMMIT_LIMIT_EVENTS", 10)
    monkeypatch.setattr(compare, "WINDOW_ALL", 25)
    await act(
        server,
        prefix,
        ("STORE", "1:*", "+FLAGS", r"(\Seen)"),
        ("STORE", "3,30,60", "+FLAGS", r"(\Deleted)"),
        ("EXPUNGE",),
    )
    told = len(await reader.events())
    # The life ends with the first batch that lands, again and again.
    for _ in range(20):
        async with following(bus, quick(server, prefix)):
            for _ in range(200):
                if len(await reader.events()) > told:
                    break
                await asyncio.sleep(0.01)
        events = await reader.events()
        if len(events) == told:
            break
        told = len(events)
    left = {n: SEEN for n in range(1, count + 1) if n not in (3, 30, 60)}
    found = await seen(reader, {n: set(words) for n, words in left.items()})
    assert len(found.told) == count + len(left) + 3


@pytest.mark.fault("A14", "A11")
@pytest.mark.parametrize("habit", ["qresync", "condstore", "snapshot"])
async def test_cut_off_at_any_byte_of_the_answers_the_changes_are_told_once(
    dovecot_that: Callable[[str], Dovecot],
    bus: Bus,
    reader: BusReader,
    prefix: str,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
    habit: str,
) -> None:
    server = dovecot_that(habit)
    await server.append(prefix, [mail(n) for n in range(1, 6)])
    async with following(bus, quick(server, prefix)):
        await seen(reader, {n: set() for n in range(1, 6)})
    await act(server, prefix, ("STORE", "1:4", "+FLAGS", r"(\Seen)"), ("STORE", "2", "+FLAGS", r"(\Deleted)"))
    await act(server, prefix, ("EXPUNGE",))
    proxy = await fault_proxy(server.host, server.imap)
    for cut_at in range(1400, 6000, 37):
        proxy.cut_each_after(cut_at)
        box = Box(proxy.port, prefix)
        async with following(bus, box):
            await until(lambda: bool(box.states) or box.status.state == "watching")  # noqa: B023
        if not box.states:
            break
    found = await seen(reader, {1: {"$seen"}, 3: {"$seen"}, 4: {"$seen"}, 5: set()})
    assert len(found.told) == 5 + 4


@pytest.mark.fault("A11")
@pytest.mark.parametrize("habit", ["qresync", "condstore", "snapshot"])
async def test_mail_that_goes_while_other_mail_is_read_is_removed_once(
    dovecot_that: Callable[[str], Dovecot], bus: Bus, reader: BusReader, prefix: str, habit: str
) -> None:
    server = dovecot_that(habit)
    await server.append(prefix, [mail(n) for n in range(1, 11)])
    async with following(bus, quick(server, prefix)):
        await seen(reader, {n: set() for n in range(1, 11)})
        for n in range(1, 9):
            await asyncio.gather(
                server.append(prefix, [mail(20 + n)]),
                act(server, prefix, ("STORE", str(n), "+FLAGS", r"(\Deleted)"), ("EXPUNGE",)),
            )
        found = await seen(reader, {n: set() for n in [*range(9, 19)]})
    assert sorted(uid for kind, uid in found.told if kind == "removed") == list(range(1, 9))


@pytest.mark.fault("A11")
async def test_an_expunge_in_the_middle_of_a_fetch_moves_no_flag(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2, 3)}

    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        if "BODY" not in arguments or 4 not in imap_stub.messages:
            return False
        # RFC 9051 7.5.1 allows it during UID commands: from here on number 2 is another message.
        del imap_stub.messages[1]
        await connection.send("* 1 EXPUNGE\r\n* 1 FETCH (FLAGS (\\Flagged))\r\n")
        imap_stub.flags[2] = "\\Flagged"
        imap_stub.hooks.clear()
        return False

    imap_stub.hooks["UID FETCH"] = fetch
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(3)
        await imap_stub.deliver(4, mail(4))
        found = await seen(reader, {2: {"$flagged"}, 3: {"$seen"}, 4: {"$seen"}})
    assert sorted(found.told[4:]) == [("changed", 2), ("removed", 1)]


@pytest.mark.fault("A16")
async def test_a_counter_that_goes_backwards_is_one_comparison_in_full(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.capabilities, imap_stub.highestmodseq = MODSEQ, 100
    imap_stub.messages = {n: mail(n) for n in (1, 2, 3)}
    async with following(bus, Box(imap_stub.port)):
        await seen(reader, {n: {"$seen"} for n in (1, 2, 3)})
    # What changed has a modseq that looks old.
    imap_stub.highestmodseq, imap_stub.flags[2], imap_stub.modseqs[2] = 50, "\\Flagged", 40
    for _ in range(2):
        box = Box(imap_stub.port)
        async with following(bus, box):
            await watching(box)
            await seen(reader, {1: {"$seen"}, 2: {"$flagged"}, 3: {"$seen"}})
    assert [told for told in (await view(reader)).told if told[0] != "received"] == [("changed", 2)]
    # From then on it counts again.
    imap_stub.highestmodseq, imap_stub.flags[3], imap_stub.modseqs[3] = 60, "", 55
    imap_stub.commands.clear()
    async with following(bus, Box(imap_stub.port)):
        await seen(reader, {1: {"$seen"}, 2: {"$flagged"}, 3: set()})
    assert any("CHANGEDSINCE 50" in line for line in imap_stub.commands)


@pytest.mark.fault("A16")
async def test_what_is_offered_and_refused_is_said_once_and_done_without(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        if "CHANGEDSINCE" in arguments:
            await connection.send(f"{tag} BAD unknown\r\n")
        return "CHANGEDSINCE" in arguments

    imap_stub.capabilities, imap_stub.highestmodseq = MODSEQ, 5
    imap_stub.hooks["UID FETCH"] = fetch
    imap_stub.messages = {1: mail(1), 2: mail(2)}
    box = Box(imap_stub.port)
    for n in range(2):
        async with following(bus, box):
            await reader.wait_received(2)
            await watching(box)
            imap_stub.flags[2], imap_stub.highestmodseq = f"k{n}", 6 + n
            await imap_stub.tell(f"* 2 FETCH (FLAGS (k{n}))")
            await seen(reader, {1: {"$seen"}, 2: {f"k{n}"}})
            assert box.status.sync == "snapshot"
        box.status.state = "starting"
    degraded = [str(error) for state, error in box.states if state is AccountState.DEGRADED]
    assert len(degraded) == 1
    assert "CHANGEDSINCE" in degraded[0]


@pytest.mark.fault("A15")
async def test_a_server_that_says_nothing_is_compared_from_time_to_time(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "OPEN_AGAIN_SNAPSHOT_S", 0.1)
    imap_stub.messages = {n: mail(n) for n in (1, 2, 3)}
    async with following(bus, Box(imap_stub.port)):
        await seen(reader, {n: {"$seen"} for n in (1, 2, 3)})
        imap_stub.flags[1] = ""
        await seen(reader, {1: set(), 2: {"$seen"}, 3: {"$seen"}})
        del imap_stub.messages[2]
        await seen(reader, {1: set(), 3: {"$seen"}})


@pytest.mark.fault("A07")
async def test_a_count_that_shrinks_without_a_word_is_compared(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2, 3)}
    box = Box(imap_stub.port)
    async with following(bus, box):
        await seen(reader, {n: {"$seen"} for n in (1, 2, 3)})
        await watching(box)
        del imap_stub.messages[2]
        await imap_stub.tell("* 2 EXISTS")
        await seen(reader, {1: {"$seen"}, 3: {"$seen"}})


@pytest.mark.fault("A07")
async def test_an_answer_that_leaves_messages_out_removes_nothing(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        if "SIZE" in arguments or "BODY" in arguments:
            return False
        await connection.send(imap_stub.flags_of(1))
        await connection.send(f"{tag} OK done\r\n")
        return True

    imap_stub.messages = {n: mail(n) for n in (1, 2, 3)}
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(3)
    imap_stub.hooks["UID FETCH"] = fetch
    box = Box(imap_stub.port)
    async with following(bus, box):
        await watching(box)
    assert (await view(reader)).messages == dict.fromkeys((1, 2, 3), SEEN)


@pytest.mark.fault("A10")
async def test_flags_of_nobody_and_flags_twice_are_no_event(imap_stub: ImapStub, bus: Bus, reader: BusReader) -> None:
    imap_stub.messages = {n: mail(n) for n in (1, 2)}
    box = Box(imap_stub.port)
    async with following(bus, box):
        await seen(reader, {1: {"$seen"}, 2: {"$seen"}})
        await watching(box)
        before = len(imap_stub.commands)
        for line in ("* 9 FETCH (FLAGS (\\Flagged))", "* 1 FETCH (UID 77 FLAGS ())", "* 2 FETCH (FLAGS (\\Seen))"):
            await imap_stub.tell(line)
        await until(lambda: sum("FETCH" in line for line in imap_stub.commands[before:]) >= 2)
        await imap_stub.deliver(3, mail(3))
        found = await seen(reader, {1: {"$seen"}, 2: {"$seen"}, 3: {"$seen"}})
    assert found.told == [("received", n) for n in (1, 2, 3)]


async def test_a_quiet_reconnect_asks_nothing_of_a_server_with_qresync(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str, fault_proxy: Callable[..., Awaitable[FaultProxy]]
) -> None:
    await dovecot.append(prefix, [mail(n) for n in range(1, 4)])
    async with following(bus, quick(dovecot, prefix)):
        await seen(reader, {1: set(), 2: set(), 3: set()})
        await act(dovecot, prefix, ("STORE", "1", "+FLAGS", r"(\Seen)"))
        await seen(reader, {1: {"$seen"}, 2: set(), 3: set()})
    proxy = await fault_proxy(dovecot.host, dovecot.imap)
    said: list[bytes] = []
    proxy.watch = lambda _way, chunk: (said.append(chunk), chunk)[1]
    box = Box(proxy.port, prefix)
    async with following(bus, box):
        await watching(box)
        await until(lambda: any(b"IDLE" in chunk for chunk in said))
    assert b"CHANGEDSINCE" not in b"".join(said)
    assert View().read(await reader.events()).messages == {1: SEEN, 2: PLAIN, 3: PLAIN}


@pytest.mark.fault("A05")
@pytest.mark.parametrize("habit", ["qresync", "condstore", "snapshot"])
async def test_a_mailbox_made_again_under_an_open_session_is_noticed(
    dovecot_that: Callable[[str], Dovecot],
    bus: Bus,
    reader: BusReader,
    prefix: str,
    habit: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compare, "OPEN_AGAIN_MODSEQ_S", 0.3)
    monkeypatch.setattr(compare, "OPEN_AGAIN_SNAPSHOT_S", 0.3)
    server = dovecot_that(habit)
    with server.client(prefix) as client:
        client.create("Box")
        client.append("Box", "", "", mail(1))
    async with following(bus, quick(server, prefix, mailbox="Box")):
        await seen(reader, {1: set()})
        # At once: Dovecot leaves the session with the mailbox that is no more, and says nothing.
        server.make_again(prefix, "Box")
        await seen(reader, {})
        await server.append(prefix, [mail(2)], "Box")
        await seen(reader, {1: set()})
    assert [event.body["reason"] for event in await reader.events() if event.kind == "reset"] == [
        "start",
        "uidvalidity",
    ]


@pytest.mark.fault("A10")
async def test_a_change_that_is_told_while_other_flags_are_asked_is_not_lost(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        # Dovecot tells of number 1 at the end of the answer about others, and never again.
        if arguments.startswith("3:") and 1 not in imap_stub.flags:
            imap_stub.flags[1], imap_stub.modseqs[1], imap_stub.highestmodseq = "\\Flagged", 7, 7
            await connection.send("* 1 FETCH (UID 1 MODSEQ (7) FLAGS (\\Flagged))\r\n")
        return False

    monkeypatch.setattr(compare, "WINDOW_SINCE", 2)
    imap_stub.capabilities, imap_stub.highestmodseq = MODSEQ, 5
    imap_stub.messages = {n: mail(n) for n in (1, 2, 3, 4)}
    box = Box(imap_stub.port)
    async with following(bus, box):
        await reader.wait_received(4)
        await watching(box)
        imap_stub.hooks["UID FETCH"] = fetch
        imap_stub.flags[4], imap_stub.modseqs[4], imap_stub.highestmodseq = "", 6, 6
        await imap_stub.tell("* 4 FETCH (UID 4 MODSEQ (6) FLAGS ())")
        await seen(reader, {1: {"$flagged"}, 2: {"$seen"}, 3: {"$seen"}, 4: set()})


@pytest.mark.fault("A11", "A14")
async def test_a_removal_that_is_told_behind_newer_flags_is_not_lost(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    async def enable(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"* ENABLED QRESYNC\r\n{tag} OK done\r\n")
        return True

    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        since = re.search(r"CHANGEDSINCE (\d+) VANISHED", arguments)
        if not since:
            return False
        # Dovecot shows flags of modseq 8, and of the removal at modseq 7 it tells when they are out.
        if 2 in imap_stub.messages:
            imap_stub.flags[1], imap_stub.modseqs[1], imap_stub.highestmodseq = "", 8, 8
            await connection.send(imap_stub.flags_of(1) + imap_stub.flags_of(3) + "* VANISHED 2\r\n")
            del imap_stub.messages[2]
        elif int(since[1]) < 7:
            await connection.send("* VANISHED (EARLIER) 2\r\n")
        await connection.send(f"{tag} OK done\r\n")
        return True

    imap_stub.capabilities, imap_stub.highestmodseq = f"{MODSEQ} ENABLE QRESYNC", 5
    imap_stub.hooks["ENABLE"] = enable
    imap_stub.messages = {n: mail(n) for n in (1, 2, 3)}
    async with following(bus, Box(imap_stub.port)):
        await seen(reader, {n: {"$seen"} for n in (1, 2, 3)})
        imap_stub.hooks["UID FETCH"] = fetch
        imap_stub.flags[3], imap_stub.modseqs[3], imap_stub.highestmodseq = "", 6, 6
        await imap_stub.tell("* 3 FETCH (UID 3 MODSEQ (6) FLAGS ())")
        await seen(reader, {1: set(), 3: set()})
