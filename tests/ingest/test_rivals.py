"""Two processes that both take one mailbox for theirs: every mail once, the loser says so and lets go."""

import pytest

from service.bus import Bus
from service.contract import AccountState
from service.ingest import load_cursor
from tests.ingest.harness import QUICK, Box, following
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import BusReader, until

TURNS = 12


def mail(number: int) -> bytes:
    return b"Subject: mail %d\r\n\r\nbody\r\n" % number


async def writers(reader: BusReader, first: int) -> set[str]:
    """Who wrote the commits that announce mails from this UID on."""
    cursors = [load_cursor(event.headers.get("Mail-Cursor", "")) for event in await reader.events()]
    return {cursor.writer for cursor in cursors if cursor is not None and cursor.last >= first}


def refusals(box: Box) -> list[str]:
    return [str(error) for state, error in box.states if state is AccountState.DEGRADED]


@pytest.mark.fault("D02")
async def test_the_loser_says_who_writes_lets_go_and_does_not_take_turns(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    boxes = {name: Box(imap_stub.port, writer=name) for name in ("one/1", "two/2")}
    one, two = boxes.values()
    one.alive, two.alive = frozenset({two.writer}), frozenset({one.writer})
    imap_stub.messages = {1: mail(1)}
    async with following(bus, one):
        await reader.wait_received(1)
        # A first time it may contest: who wrote last may be about to let go.
        async with following(bus, two):
            await until(lambda: one.status.state == two.status.state == "watching")
            await imap_stub.deliver(2, mail(2))
            await until(lambda: bool(refusals(one) or refusals(two)))
            winner, loser = (two, one) if refusals(one) else (one, two)
            assert f"{winner.writer} writes this mailbox now" in refusals(loser)[0]
            # It comes back again and again, sees that the other writes, and opens nothing.
            held = len(imap_stub.connections)
            for number in range(3, TURNS):
                await imap_stub.deliver(number, mail(number))
                await reader.wait_received(number)
            await until(lambda: len(refusals(loser)) >= 3, limit_s=20 * QUICK.superseded_s)
            assert len(imap_stub.connections) <= held
            assert not refusals(winner)
            assert await writers(reader, 2) == {winner.writer}
            # The other is gone: it goes on.
            loser.alive = frozenset()
            await until(lambda: loser.status.state == "watching")
    assert [event.body["subject"] for event in await reader.received()] == [f"mail {n}" for n in range(1, TURNS)]
