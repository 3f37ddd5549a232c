"""The time of day jumps, as after a suspend or a bad time server: what is under way goes on, and nothing ends early."""

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from nats.js.kv import KeyValue

from service.app import Application
from service.clock import SystemClock
from service.settings import load_settings
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import reading, settings_for, until, with_relay
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay


class JumpingClock(SystemClock):
    """The machine's clock, and the time of day so far ahead of it."""

    ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead


@pytest.mark.fault("F04")
async def test_the_time_of_day_jumps_and_mail_goes_in_and_out_as_before(
    imap_stub: ImapStub, own_nats: NatsServer, relay: ScriptedRelay, prefix: str, tmp_path: Path
) -> None:
    imap = {"host": "127.0.0.1", "port": imap_stub.port, "security": "none"}
    account = {"id": "box", "address": "me@example.com", "password": "x", "incoming": {"imap": imap, "initial": "all"}}
    file = tmp_path / "mailbus.yaml"
    shop = with_relay({"id": "shop", "address": "shop@example.com"}, relay)
    settings = settings_for(own_nats.url, prefix, account, shop, fleet={"ttl": "3s"})
    file.write_text(yaml.safe_dump(settings))
    clock = JumpingClock()
    app = Application(load_settings(file), file=file, clock=clock)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(app.run())
        await asyncio.wait_for(app.wait_started(), 30)
        async with reading(own_nats.url, prefix) as reader:
            presence = await reader.nc.jetstream().key_value(f"{prefix}-fleet")
            came = await boot_of(presence)
            for number, hours in enumerate((0, 1, -1, 24, -24), start=1):
                clock.ahead = timedelta(hours=hours)
                # It tells of mail to whoever idles, and to nobody else.
                await until(lambda: any(connection.idling for connection in imap_stub.connections))
                await imap_stub.deliver(number, b"Subject: mail %d\r\n\r\nbody\r\n" % number)
                request = {"id": f"r{number}", "to": [{"email": "a@example.org"}], "text": "x"}
                await reader.nc.jetstream().publish(f"{prefix}.out.shop", json.dumps(request).encode())
                await reader.wait_received(number)
                await relay.received(number)
            # One connection that reads, and one key, all the time, and nothing that anybody should look at.
            assert sum("EXAMINE" in line for line in imap_stub.commands) == 1
            assert await boot_of(presence) == came
            app.stop()
            await asyncio.wait_for(running, 30)
            kinds = [event.kind for event in await reader.events("STATUS")]
            assert sorted(kinds) == ["connected", "connected", *["sent"] * 5]
            assert [event.body["subject"] for event in await reader.received()] == [f"mail {n}" for n in range(1, 6)]


async def boot_of(presence: KeyValue) -> str:
    entry = await presence.get("one")
    assert entry.value is not None
    return str(json.loads(entry.value)["boot"])
