"""One account's dead relay and long queue: another account's mail goes out as if there were nothing."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from tests.servers.mailbus import BusReader, Mailbus, reading, settings_for, until, with_relay
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy
from tests.servers.smtp import ScriptedRelay

Maker = Callable[..., Mailbus]
COUNT = 300


async def queue(reader: BusReader, account: str) -> None:
    for number in range(COUNT):
        request = {"id": f"{account}-{number}", "to": [{"email": "a@example.org"}], "text": "x"}
        await reader.nc.jetstream().publish(f"{reader.prefix}.out.{account}", json.dumps(request).encode())


@pytest.mark.fault("E05")
@pytest.mark.parametrize("how", ["refuses", "says nothing"])
async def test_a_dead_relay_with_hundreds_waiting_disturbs_no_other_accounts_sending(
    own_nats: NatsServer,
    mailbus: Maker,
    prefix: str,
    relay: ScriptedRelay,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
    how: str,
) -> None:
    between = await fault_proxy("127.0.0.1", relay.port)
    if how == "refuses":
        await between.refuse()
    else:
        between.swallow()
    dead = with_relay({"id": "dead", "address": "dead@example.com"}, relay)
    dead["outgoing"]["smtp"]["port"] = between.port
    fine = with_relay({"id": "fine", "address": "fine@example.com"}, relay)
    one = mailbus(settings_for(own_nats.url, prefix, dead, fine))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await queue(reader, "dead")
        if how == "says nothing":
            await until(lambda: between.connections > 0)
        else:
            await until(lambda: any(line["account"] == "dead" for line in one.said("account_state")))
        await queue(reader, "fine")
        await relay.received(COUNT, 60)
        await until_sent(reader, "fine", COUNT)
        assert await reader.count(f"{prefix}.status.dead.sent", "STATUS") == 0
        assert {message.mail_from for message in relay.messages} == {"fine@example.com"}
        # Nothing of the other account is lost meanwhile.
        waiting = await reader.count(f"{prefix}.out.dead", "OUT") + await reader.count(
            f"{prefix}.later.dead.*", "LATER"
        )
        assert waiting == COUNT
        assert await one.stop() == 0


async def until_sent(reader: BusReader, account: str, count: int) -> None:
    """Until so many statuses say so."""
    async with asyncio.timeout(30):
        while await reader.count(f"{reader.prefix}.status.{account}.sent", "STATUS") < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
