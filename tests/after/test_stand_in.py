"""What POP3 announced while IMAP was away is dealt with, too, once IMAP has shown it: on Dovecot, by its own id."""

import asyncio
from collections.abc import Callable

import pytest

from service.bus import Bus
from service.contract import NUMBERS_FROM, After, place_of
from service.ingest import Lesson
from tests.after.harness import DELETE, MOVE, SEEN, doing, look, make, wait_done, wait_subjects
from tests.ingest.away import by_imap, looked, returned, standing_in
from tests.ingest.view import act, mail
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import BusReader


@pytest.mark.fault("B07")
@pytest.mark.parametrize("rule", [SEEN, DELETE, MOVE])
async def test_the_rule_is_carried_out_on_mail_that_was_announced_by_either_way(
    dovecot_that: Callable[[str], Dovecot], bus: Bus, reader: BusReader, prefix: str, rule: After
) -> None:
    server = dovecot_that("guid")
    await asyncio.to_thread(make, server, prefix, "Done")
    await server.append(prefix, [mail(1)])
    imap = {"user": prefix, "after": rule}
    assert await by_imap(bus, server.imap, server.pop3, **imap) is Lesson.PROVED
    await server.append(prefix, [mail(2), mail(3)])
    async with standing_in(bus, server.pop3, **imap) as away:
        await reader.wait_received(3)
        await looked(away)
    # Dovecot marks as seen what POP3 reads; and one goes before it is dealt with.
    await act(
        server, prefix, ("STORE", "1:3", "-FLAGS", r"(\Seen)"), ("STORE", "3", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",)
    )
    received = await reader.received()
    numbers = [place.uid for event in received if (place := place_of(event.body["id"])) is not None]
    assert numbers == [1, NUMBERS_FROM + 1, NUMBERS_FROM + 2]
    box = returned(server.imap, **imap)
    async with doing(bus, box) as desk:
        await wait_done(bus, box, received[-1].seq)
        there, done = ["mail 1", "mail 2"], []
        if rule is not SEEN:
            there, done = [], there if rule is MOVE else []
        await wait_subjects(server, prefix, there)
        await wait_subjects(server, prefix, done, "Done")
    if rule is SEEN:
        assert all("\\Seen" in flags for _, flags in await asyncio.to_thread(look, server, prefix))
    assert not desk.said
