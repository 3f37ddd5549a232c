"""Commands that are under way while their account ends here: they have their time, and are cut when it is over."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.bus import Bus
from tests.commands.conftest import code, desk, mail
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import until
from tests.servers.proxy import FaultProxy, Way

Proxy = Callable[[str, int], Awaitable[FaultProxy]]


class Held:
    """A proxy that keeps the answer to a command until it is healed."""

    def __init__(self, proxy: FaultProxy, word: bytes) -> None:
        self.proxy, self.came = proxy, asyncio.Event()
        self._word = word
        proxy.watch = self._watch

    def _watch(self, way: Way, chunk: bytes) -> bytes:
        if way is Way.TO_SERVER and self._word in chunk:
            self.proxy.stall()
            self.came.set()
        return chunk


async def test_a_command_that_ends_in_time_is_answered_before_its_account_has_ended(
    bus: Bus, whole_dovecot: Dovecot, prefix: str, fault_proxy: Proxy
) -> None:
    held = Held(await fault_proxy(whole_dovecot.host, whole_dovecot.imap), b"STORE")
    async with desk(bus, whole_dovecot, prefix, port=held.proxy.port, reply_s=60.0) as one:
        await one.append(mail("one"))
        (id,) = await one.ids()
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(one.message("flags", {"ids": [id], "add": ["$seen"]}))
            await asyncio.wait_for(held.came.wait(), 10)
            ending = group.create_task(one.in_hand.end(60.0))
            await asyncio.sleep(0)
            assert not ending.done()
            held.proxy.heal()
            await ending
        assert not code(answer.result())
        # Nothing is under way: whoever ends now waits for nothing.
        await asyncio.wait_for(one.in_hand.end(60.0), 1)


@pytest.mark.parametrize("how", ["its time is over", "cancelled"])
async def test_a_command_that_does_not_end_in_time_is_cut_and_its_connection_closed(
    bus: Bus, whole_dovecot: Dovecot, prefix: str, fault_proxy: Proxy, how: str
) -> None:
    held = Held(await fault_proxy(whole_dovecot.host, whole_dovecot.imap), b"STORE")
    async with desk(bus, whole_dovecot, prefix, port=held.proxy.port, reply_s=60.0) as one:
        await one.append(mail("one"))
        (id,) = await one.ids()
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(one.message("flags", {"ids": [id], "add": ["$seen"]}))
            await asyncio.wait_for(held.came.wait(), 10)
            ending = group.create_task(one.in_hand.end(0.1 if how == "its time is over" else 60.0))
            if how == "cancelled":
                await asyncio.sleep(0)
                ending.cancel()
        assert code(answer.result()) == "504"
        assert b"cut short: its account ends here" in answer.result().data
        held.proxy.heal()
        await until(lambda: not held.proxy.open_now, what="the connection of the command is closed")
