"""What a second client does to known mail becomes events, each once, whatever the server offers to tell of it."""

from collections.abc import Callable

import pytest

from service.bus import Bus
from tests.ingest.harness import following
from tests.ingest.view import act, mail, quick, seen, view, watching
from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import ImapServer
from tests.servers.mailbus import BusReader

HABITS = ["qresync", "condstore", "snapshot", "old", "cyrus"]


@pytest.fixture(params=HABITS)
def server(request: pytest.FixtureRequest, server_that: Callable[[str], ImapServer]) -> ImapServer:
    return server_that(request.param)


async def test_flags_and_removals_are_told_while_connected(
    server: ImapServer, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await server.append(prefix, [mail(n) for n in range(1, 6)])
    async with following(bus, quick(server, prefix)):
        await seen(reader, {n: set() for n in range(1, 6)})
        await act(server, prefix, ("STORE", "2,4", "+FLAGS", r"(\Seen work)"))
        await seen(reader, {1: set(), 2: {"$seen", "work"}, 3: set(), 4: {"$seen", "work"}, 5: set()})
        await act(server, prefix, ("STORE", "1,4", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",))
        found = await seen(reader, {2: {"$seen", "work"}, 3: set(), 5: set()})
        await server.append(prefix, [mail(6)])
        found = await seen(reader, {2: {"$seen", "work"}, 3: set(), 5: set(), 6: set()})
    assert sorted(found.told) == sorted(
        [("received", n) for n in range(1, 7)] + [("changed", 2), ("changed", 4), ("removed", 1), ("removed", 4)]
    )


async def test_flags_and_removals_of_a_time_away_are_told(
    server: ImapServer, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await server.append(prefix, [mail(n) for n in range(1, 8)])
    async with following(bus, quick(server, prefix)):
        await seen(reader, {n: set() for n in range(1, 8)})
    await act(
        server,
        prefix,
        ("STORE", "1:3", "+FLAGS", r"(\Flagged)"),
        ("STORE", "3,6", "+FLAGS", r"(\Deleted)"),
        ("EXPUNGE",),
        ("STORE", "5", "+FLAGS", r"(\Seen)"),
        ("STORE", "5", "-FLAGS", r"(\Seen)"),
        ("STORE", "4", "+FLAGS", r"(\Deleted)"),
    )
    await server.append(prefix, [mail(8)])
    box = quick(server, prefix)
    async with following(bus, box):
        found = await seen(reader, {1: {"$flagged"}, 2: {"$flagged"}, 4: set(), 5: set(), 7: set(), 8: set()})
        await watching(box)
    again = quick(server, prefix)
    async with following(bus, again):
        await watching(again)
    assert (await view(reader)).told == found.told
    # What went and came back is no change, and \Deleted alone is none.
    assert [told for told in found.told if told[0] != "received"] == [
        ("changed", 1),
        ("changed", 2),
        ("removed", 3),
        ("removed", 6),
    ]


@pytest.mark.fault("D21")
async def test_a_flag_set_cleared_and_set_again_is_three_events_with_three_ids(
    server: ImapServer, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await server.append(prefix, [mail(1)])
    async with following(bus, quick(server, prefix)):
        await seen(reader, {1: set()})
        for sign, keywords in (("+", {"$seen"}), ("-", set()), ("+", {"$seen"})):
            await act(server, prefix, ("STORE", "1", f"{sign}FLAGS", r"(\Seen)"))
            found = await seen(reader, {1: keywords})
    assert found.told == [("received", 1)] + [("changed", 1)] * 3
    assert len(set(found.ids)) == 5


async def test_moved_mail_is_removed_here(server: ImapServer, bus: Bus, reader: BusReader, prefix: str) -> None:
    await server.append(prefix, [mail(n) for n in range(1, 4)])
    with server.client(prefix) as client:
        client.create("Elsewhere")
    async with following(bus, quick(server, prefix)):
        await seen(reader, {1: set(), 2: set(), 3: set()})
        await act(server, prefix, ("MOVE", "1:2", "Elsewhere"))
        await seen(reader, {3: set()})


async def test_old_mail_below_the_starting_line_is_not_watched(
    server: ImapServer, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await server.append(prefix, [mail(n) for n in range(1, 5)])
    box = quick(server, prefix, initial="new")
    async with following(bus, box):
        await watching(box)
        await server.append(prefix, [mail(5)])
        await seen(reader, {5: set()})
        await act(server, prefix, ("STORE", "1,5", "+FLAGS", r"(\Seen)"), ("STORE", "2", "+FLAGS", r"(\Deleted)"))
        await act(server, prefix, ("EXPUNGE",))
        found = await seen(reader, {5: {"$seen"}})
    async with following(bus, box):
        await watching(box)
    assert (await view(reader)).told == found.told == [("received", 5), ("changed", 5)]


async def test_the_status_says_how_the_server_tells(
    dovecot_that: Callable[[str], Dovecot], bus: Bus, prefix: str
) -> None:
    for habit, sync in [("qresync", "qresync"), ("condstore", "condstore"), ("snapshot", "snapshot")]:
        box = quick(dovecot_that(habit), prefix, account=habit)
        async with following(bus, box):
            await watching(box)
        assert box.status.sync == sync
        assert not box.states


async def test_an_emptied_mailbox_is_told_whole(server: ImapServer, bus: Bus, reader: BusReader, prefix: str) -> None:
    await server.append(prefix, [mail(n) for n in range(1, 30)])
    async with following(bus, quick(server, prefix)):
        await seen(reader, {n: set() for n in range(1, 30)})
    await act(server, prefix, ("STORE", "1:*", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",))
    async with following(bus, quick(server, prefix)):
        await seen(reader, {})
        await server.append(prefix, [mail(1)])
        await seen(reader, {30: set()})
