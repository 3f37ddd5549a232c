"""IMAP fails and POP3 stands in, on a whole process and real Dovecot: each mail once, under ids that outlast it."""

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from service.contract import NUMBERS_FROM, place_of
from tests.ingest.view import act, mail, seen
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import BusReader, Mailbus, command, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy

Maker = Callable[..., Mailbus]
OLD = 500
# Of each of three rounds; with one more by IMAP they are 198 mails, or 201.
BY_IMAP, UNLEARNT, BY_POP3 = 30, 1, 35


async def wait_state(reader: BusReader, state: str, count: int) -> None:
    """Until the account was said to be in this state so often."""
    deadline = asyncio.get_running_loop().time() + 40
    while True:
        with contextlib.suppress(Exception):
            states = [event.body["state"] for event in await reader.events("STATUS")]
            if states.count(state) >= count:
                return
            assert asyncio.get_running_loop().time() < deadline, states
        await asyncio.sleep(0.1)


async def stand_ins(one: Mailbus) -> str:
    """What the metric says."""
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{one.port}/metrics") as response:
        return re.findall(r"^mailbus_stand_ins (.*)$", await response.text(), re.MULTILINE)[0]


@pytest.mark.fault("B07")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("ids", ["made of UIDs", "of their own"])
async def test_imap_fails_three_times_and_each_new_mail_is_announced_once_with_an_id_that_lasts(
    dovecot_that: Callable[[str], Dovecot],
    own_nats: NatsServer,
    mailbus: Maker,
    prefix: str,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
    ids: str,
) -> None:
    paired = ids == "of their own"
    dovecot = dovecot_that("guid" if paired else "qresync")
    await dovecot.append(prefix, [mail(n) for n in range(OLD)])
    proxy = await fault_proxy(dovecot.host, dovecot.imap)
    pop3 = {"host": dovecot.host, "port": dovecot.pop3, "security": "none", "stand_in": "1s"}
    account = imap_account(dovecot, prefix, port=proxy.port, initial="new", poll="1s", pop3=pop3)
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    new = OLD
    async with reading(own_nats.url, prefix) as reader:
        await wait_state(reader, "connected", 1)
        for round_ in range(1, 4):
            # By IMAP, by POP3, and once more by IMAP.
            await dovecot.append(prefix, [mail(new := new + 1) for _ in range(BY_IMAP)])
            await reader.wait_received(new - OLD)
            if paired:
                await until(lambda: any(line["lesson"] == "PROVED" for line in one.said("pop3_learnt")))
                # What came since it was learnt is known by what the log says of it.
                await dovecot.append(prefix, [mail(new := new + 1) for _ in range(UNLEARNT)])
                await reader.wait_received(new - OLD)
            await proxy.refuse()
            proxy.cut()
            await wait_state(reader, "degraded", round_)
            await dovecot.append(prefix, [mail(new := new + 1) for _ in range(BY_POP3)])
            found = await reader.wait_received(new - OLD)
            assert await stand_ins(one) == "1.0"
            await proxy.start()
            await wait_state(reader, "connected", round_ + 1)
            assert await stand_ins(one) == "0.0"
            await dovecot.append(prefix, [mail(new := new + 1)])
            await reader.wait_received(new - OLD)
            by_pop3 = found[-1].body["id"]
            # An id that was given over POP3 is good for commands.
            asked = {"ids": [by_pop3], "add": ["$flagged"]}
            answer = await reader.nc.request(f"{prefix}.cmd.box.flags", json.dumps(asked).encode(), timeout=20)
            assert json.loads(answer.data)["updated"] == [by_pop3], answer.headers
        # What happened to the others in the meantime is told.
        await act(dovecot, prefix, ("STORE", str(OLD + 1), "+FLAGS", r"(\Deleted)"), ("EXPUNGE",))
        received = await reader.received()
        uids = [place.uid for event in received if (place := place_of(event.body["id"])) is not None]
        a_round = len(received) // 3
        flags: dict[int, set[str]] = {uid: set() for uid in uids[1:]}
        for end in range(a_round - 1, len(uids), a_round):
            # Dovecot marks as seen what POP3 read.
            flags |= {uid: {"$seen"} for uid in uids[end - BY_POP3 : end]} | {uids[end - 1]: {"$seen", "$flagged"}}
        await seen(reader, flags)
        events = await reader.events()
    assert [event.body["subject"] for event in received] == [f"mail {n}" for n in range(OLD + 1, new + 1)]
    assert [event.kind for event in events].count("reset") == 1
    assert {uid >= NUMBERS_FROM for uid in uids} == ({True, False} if paired else {False})
    code, out, _ = await command(one, "check")
    assert code == 0, out
    assert await one.stop() == 0
