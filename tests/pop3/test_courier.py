"""Courier's POP3: read, emptied and announced; its unique ids are IMAP's UIDs, and others once its list is lost."""

import pytest

from service.bus import Bus
from service.pop3 import linked_uid
from tests.ingest.maildrop import Drop, body, caught_up, following, ids, kinds, subjects
from tests.pop3.harness import listed, read, session
from tests.servers.courier import Courier
from tests.servers.mailbus import BusReader

DOTS = b"Subject: dots\r\n\r\n.\r\n..two\r\n.\r\n"


@pytest.mark.fault("B01")
async def test_a_maildrop_is_listed_read_and_emptied_by_a_clean_quit_alone(courier: Courier) -> None:
    bodies = [*(body(n) for n in range(1, 80)), DOTS]
    courier.append("user", bodies)
    async with session(courier.pop3, username="user") as opened:
        assert await opened.count() == 80
        sizes, uidls = await listed(opened)
        assert list(sizes) == list(uidls) == list(range(1, 81))
        assert opened.pipelining
        assert opened.login_delay_s == 10.0
        assert await read(opened, list(sizes)) == dict(enumerate(bodies, 1))
        assert await read(opened, [80], whole=False) == {80: b"Subject: dots\r\n\r\n"}
        assert await opened.delete([1, 2, 999]) == [999]
        opened.abort()
    async with session(courier.pop3, username="user") as opened:
        assert (await listed(opened))[1] == uidls
        assert await opened.delete([1, 2]) == []
        await opened.quit()
    async with session(courier.pop3, username="user") as opened:
        assert set((await listed(opened))[1].values()) == {uidls[n] for n in uidls if n > 2}
    # UID<uid>-<uidvalidity>, as its IMAP has them.
    uidvalidity = int(uidls[1].partition(b"-")[2])
    assert [linked_uid(uidl, uidvalidity) for uidl in uidls.values()] == list(range(1, 81))


async def look(bus: Bus, courier: Courier) -> None:
    """Once: the next look by the same door would have to wait for ten seconds."""
    async with following(bus, Drop(courier.pop3, "user", initial="new")) as drop:
        await caught_up(drop)


@pytest.mark.fault("B04", "B05")
async def test_its_mail_is_announced_once_and_told_as_removed(courier: Courier, bus: Bus, reader: BusReader) -> None:
    await look(bus, courier)
    courier.append("user", [body(n) for n in range(1, 31)])
    await look(bus, courier)
    courier.append("user", [body(31)])
    await look(bus, courier)
    there = sorted((courier.maildir("user") / "cur").iterdir()) or sorted((courier.maildir("user") / "new").iterdir())
    there[0].unlink()
    await look(bus, courier)
    events = await reader.events()
    assert subjects(events) == [f"mail {n}" for n in range(1, 32)]
    assert ids(events, "removed") == [ids(events)[0]]
    # It counts anew where its list is lost: a unique id may be that of another mail, within the same second.
    (courier.maildir("user") / "courierpop3dsizelist").unlink()
    courier.append("user", [body(32)])
    await look(bus, courier)
    events = await reader.events()
    assert subjects(events) == [f"mail {n}" for n in range(1, 33)]
    assert kinds(events).count("removed") == 1
