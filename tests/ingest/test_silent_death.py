"""The connection dies without a word, at each thing that it is used for: noticed within the limit, nothing lost."""

from collections.abc import Awaitable, Callable

import pytest

from service.bus import Bus
from tests.ingest.harness import Box, following
from tests.ingest.view import act, mail, seen, view, watching
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import BusReader, until
from tests.servers.proxy import FaultProxy, Way

MakeProxy = Callable[[str, int], Awaitable[FaultProxy]]
REPLY_S = 0.4
# What a busy machine may take beside it, to get so far and to say so.
NOTICED_WITHIN_S = 30.0
LOSSES_LIMIT = 20
# Once the network is back nothing is shown by how quick a server is.
PATIENT_S = 10.0


def dies_at(proxy: FaultProxy, way: Way, word: bytes) -> None:
    """From the first chunk on that has the word, all vanishes, the chunk too, and so does a new connection."""

    def watch(went: Way, chunk: bytes) -> bytes:
        if went is way and word in chunk:
            proxy.swallow()
        return chunk

    proxy.watch = watch


def dies_within(proxy: FaultProxy, word: bytes) -> None:
    """Half of the first answer with the word arrives, and then nothing."""
    half = False

    def watch(went: Way, chunk: bytes) -> bytes:
        nonlocal half
        if half:
            proxy.swallow()
        elif went is Way.TO_CLIENT and word in chunk:
            half = True
            return chunk[: chunk.index(word) + len(word) + 5]
        return chunk

    proxy.watch = watch


def told(box: Box, word: str) -> bool:
    return any(word in str(error) for _, error in box.states)


@pytest.mark.fault("A01", "A14")
@pytest.mark.parametrize(
    ("habit", "way", "word", "said"),
    [
        ("qresync", Way.TO_CLIENT, b"* OK", "no connection within 0.4 s"),
        ("qresync", Way.TO_SERVER, b"AUTHENTICATE", "no connection within 0.4 s"),
        ("qresync", Way.TO_SERVER, b" ID ", "no connection within 0.4 s"),
        ("qresync", Way.TO_SERVER, b"ENABLE QRESYNC", "no answer to ENABLE in 0.4 s"),
        ("qresync", Way.TO_SERVER, b"EXAMINE", "no answer to EXAMINE in 0.4 s"),
        ("qresync", Way.TO_SERVER, b"RFC822.SIZE", "no answer to FETCH in 0.4 s"),
        ("qresync", Way.TO_SERVER, b"BODY.PEEK", "no answer to FETCH in 0.4 s"),
        ("qresync", Way.TO_SERVER, b"CHANGEDSINCE", "no answer to FETCH in 0.4 s"),
        ("condstore", Way.TO_SERVER, b"SEARCH RETURN", "no answer to SEARCH in 0.4 s"),
        ("snapshot", Way.TO_SERVER, b"(UID FLAGS)", "no answer to FETCH in 0.4 s"),
        ("old", Way.TO_SERVER, b"NOOP", "no answer to NOOP in 0.4 s"),
        ("qresync", Way.TO_SERVER, b"IDLE", "IDLE is dead: no answer in 0.4 s"),
        ("qresync", Way.TO_CLIENT, b"+ idling", "IDLE is dead: no answer in 0.4 s"),
        ("qresync", Way.TO_SERVER, b"DONE", "IDLE is dead: no answer in 0.4 s"),
    ],
)
async def test_a_connection_that_dies_in_silence_is_noticed_in_time_and_nothing_is_lost(
    dovecot_that: Callable[[str], Dovecot],
    bus: Bus,
    reader: BusReader,
    prefix: str,
    fault_proxy: MakeProxy,
    habit: str,
    way: Way,
    word: bytes,
    said: str,
) -> None:
    server = dovecot_that(habit)
    proxy = await fault_proxy(server.host, server.imap)
    await _known_and_changed(server, bus, reader, prefix)
    dies_at(proxy, way, word)
    box = Box(proxy.port, prefix, reply_s=REPLY_S, connect_s=REPLY_S, idle_s=0.2, poll_s=0.05)
    async with following(bus, box):
        await until(lambda: told(box, said), limit_s=NOTICED_WITHIN_S, what=f"{said}: {box.states}")
        await _all_is_told(server, proxy, reader, box)


@pytest.mark.fault("A01", "A09")
@pytest.mark.parametrize("word", [b"[HIGHESTMODSEQ", b"BODY[] {", b"VANISHED (EARLIER)"])
async def test_an_answer_that_stops_half_way_is_noticed_in_time_and_nothing_is_lost(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str, fault_proxy: MakeProxy, word: bytes
) -> None:
    proxy = await fault_proxy(dovecot.host, dovecot.imap)
    await _known_and_changed(dovecot, bus, reader, prefix)
    dies_within(proxy, word)
    box = Box(proxy.port, prefix, reply_s=REPLY_S, connect_s=REPLY_S, idle_s=0.2)
    async with following(bus, box):
        await until(lambda: told(box, "in 0.4 s"), limit_s=NOTICED_WITHIN_S, what=f"{box.states}")
        await _all_is_told(dovecot, proxy, reader, box)


async def _known_and_changed(server: Dovecot, bus: Bus, reader: BusReader, user: str) -> None:
    """Three known messages, of which one is flagged and one is gone since, and a new one."""
    await server.append(user, [mail(n) for n in (1, 2, 3)])
    box = Box(server.imap, user, idle_s=0.5, poll_s=0.05)
    async with following(bus, box):
        await seen(reader, {1: set(), 2: set(), 3: set()})
        await watching(box)
    await act(server, user, ("STORE", "1", "+FLAGS", r"(\Seen)"), ("STORE", "2", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",))
    await server.append(user, [mail(4)])


async def _all_is_told(server: Dovecot, proxy: FaultProxy, reader: BusReader, box: Box) -> None:
    """The network comes back after one more change and one more mail: each thing is told once."""
    await act(server, box.user, ("STORE", "3", "+FLAGS", r"(\Flagged)"))
    await server.append(box.user, [mail(5)])
    box.reply_s = box.connect_s = PATIENT_S
    proxy.heal()
    await seen(reader, {1: {"$seen"}, 3: {"$flagged"}, 4: set(), 5: set()})
    events = (await view(reader)).told
    assert sorted(events) == sorted(
        [*(("received", n) for n in range(1, 6)), ("changed", 1), ("changed", 3), ("removed", 2)]
    )


async def test_a_connection_that_the_network_forgot_while_idle_is_replaced(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str, fault_proxy: MakeProxy
) -> None:
    proxy = await fault_proxy(dovecot.host, dovecot.imap)
    box = Box(proxy.port, prefix, reply_s=REPLY_S, idle_s=0.2)
    async with following(bus, box):
        await watching(box)
        number = 0
        # On a slow machine one may be lost between two IDLEs.
        while number < 2 or not told(box, "IDLE is dead"):
            number += 1
            assert number < LOSSES_LIMIT
            proxy.lose()
            await dovecot.append(prefix, [mail(number)])
            await reader.wait_received(number, limit_s=NOTICED_WITHIN_S)
    assert proxy.connections >= 3
