"""Cyrus's POP3: read, emptied and announced; its unique ids are IMAP's UIDs."""

import asyncio

import pytest

from service.bus import Bus
from service.pop3 import linked_uid
from tests.ingest.harness import Box
from tests.ingest.harness import following as following_imap
from tests.ingest.maildrop import DELETE, Drop, body, caught_up, following, kinds, subjects
from tests.ingest.test_stand_in import stand_in
from tests.ingest.view import watching
from tests.pop3.harness import listed, read, session
from tests.servers.cyrus import Cyrus
from tests.servers.mailbus import BusReader, until

DOTS = b"Subject: dots\r\n\r\n.\r\n..two\r\n.\r\n"


@pytest.mark.fault("B01")
async def test_a_maildrop_is_listed_read_and_emptied_by_a_clean_quit_alone(cyrus_pop3: Cyrus, prefix: str) -> None:
    bodies = [*(body(n) for n in range(1, 80)), DOTS]
    await cyrus_pop3.append(prefix, bodies)
    async with session(cyrus_pop3.pop3, username=prefix) as opened:
        sizes, uidls = await listed(opened)
        assert sizes == {number: len(one) for number, one in enumerate(bodies, 1)}
        assert opened.pipelining
        assert await read(opened, list(sizes)) == dict(enumerate(bodies, 1))
        assert await read(opened, [80], whole=False) == {80: b"Subject: dots\r\n\r\n"}
        assert await opened.delete([1, 2, 999]) == [999]
        opened.abort()
    async with session(cyrus_pop3.pop3, username=prefix) as opened:
        assert (await listed(opened))[1] == uidls
        assert await opened.delete([1, 2]) == []
        await opened.quit()
    async with session(cyrus_pop3.pop3, username=prefix) as opened:
        assert set((await listed(opened))[1].values()) == {uidls[number] for number in uidls if number > 2}


async def test_its_unique_ids_are_the_uids_of_its_imap(cyrus_pop3: Cyrus, prefix: str) -> None:
    await cyrus_pop3.append(prefix, [DOTS] * 3)

    def ask() -> tuple[int, list[int]]:
        with cyrus_pop3.client(prefix) as client:
            client.select()
            uids = client.uid("SEARCH", "ALL")[1][0].split()
            return int(client.response("UIDVALIDITY")[1][0] or b""), list(map(int, uids))

    uidvalidity, uids = await asyncio.to_thread(ask)
    async with session(cyrus_pop3.pop3, username=prefix) as opened:
        uidls = (await listed(opened))[1]
    assert [linked_uid(uidl, uidvalidity) for uidl in uidls.values()] == uids


async def test_its_mail_is_announced_deleted_and_told_as_removed(
    cyrus_pop3: Cyrus, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await cyrus_pop3.append(prefix, [body(n) for n in range(1, 31)])
    drop = Drop(cyrus_pop3.pop3, prefix, after=DELETE)
    async with following(bus, drop):
        await reader.wait_received(30)
        await cyrus_pop3.append(prefix, [body(31)])
        await reader.wait_received(31)
        deadline = asyncio.get_running_loop().time() + 30
        while kinds(await reader.events()).count("removed") < 31:
            assert asyncio.get_running_loop().time() < deadline, drop.states
            await asyncio.sleep(0.05)
        await caught_up(drop)
    assert subjects(await reader.events()) == [f"mail {n}" for n in range(1, 32)]
    assert not drop.alarms


@pytest.mark.fault("B07")
async def test_it_can_stand_in_for_its_imap(cyrus_pop3: Cyrus, bus: Bus, reader: BusReader, prefix: str) -> None:
    await cyrus_pop3.append(prefix, [body(1), body(2)])
    async with following_imap(bus, Box(cyrus_pop3.imap, prefix)) as box:
        await watching(box)
        await until(lambda: box.status.last_uid == 2)
    await cyrus_pop3.append(prefix, [body(3)])
    source = await stand_in(bus, cyrus_pop3.pop3, user=prefix)
    epoch = await source.open()
    assert epoch.uidnext == 4
    assert [row.uid for row in await source.survey(3, None)] == [3]
    await source.close()
