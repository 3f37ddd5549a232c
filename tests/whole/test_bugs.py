"""A bug in what serves all accounts is counted, and that part begins again: neither the process nor the rest ends."""

import asyncio
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import service.app
import service.commands.serve
from service.app import Application
from service.fleet import Presence, Roster
from service.imap import Pool
from service.ingest import Parser
from service.observe import metrics
from service.settings import load_settings
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import reading, settings_for, until
from tests.servers.nats import NatsServer


class Once:
    """Breaks the first call of each that it is put before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.whole: set[str] = set()

    def breaks(self, owner: Any, name: str) -> None:
        what: Callable[..., Any] = getattr(owner, name)
        self.whole.add(name)

        def broken(*args: Any, **kwargs: Any) -> Any:
            if name in self.whole:
                self.whole.discard(name)
                raise ZeroDivisionError(name)
            return what(*args, **kwargs)

        self._monkeypatch.setattr(owner, name, broken)


@pytest.mark.fault("F11")
async def test_a_bug_in_what_serves_all_accounts_costs_nobody_the_process(
    imap_stub: ImapStub, own_nats: NatsServer, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("service.fleet.supervise"), "SERVES_ALL_AGAIN_S", 0.2)
    monkeypatch.setattr("service.imap.pool.SWEEP_EVERY_S", 0.1)
    monkeypatch.setattr("service.app.BEHIND_EVERY_S", 0.1)
    imap = {"host": "127.0.0.1", "port": imap_stub.port, "security": "none"}
    account = {"id": "box", "address": "me@example.com", "password": "x", "incoming": {"imap": imap, "initial": "all"}}
    file = tmp_path / "mailbus.yaml"
    file.write_text(yaml.safe_dump(settings_for(own_nats.url, prefix, account, fleet={"ttl": "3s"})))
    app, once, bugs = Application(load_settings(file), file=file), Once(monkeypatch), metrics.BUGS._value.get()
    parts: list[tuple[Any, str]] = [
        (Parser, "_live"),
        (Presence, "take"),
        (Presence, "renew"),
        (Roster, "_hear_all"),
        (Roster, "_hear"),
        (service.commands.serve, "serve"),
        (Pool, "sweep"),
        (service.app, "behind"),
    ]
    for owner, name in parts:
        once.breaks(owner, name)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(app.run())
        await until(lambda: running.done() or (app.ready and not once.whole), what=f"{once.whole} not done")
        async with reading(own_nats.url, prefix) as reader:
            await until(lambda: running.done() or any(connection.idling for connection in imap_stub.connections))
            await imap_stub.deliver(1, b"Subject: one\r\n\r\nbody\r\n")
            (event,) = await reader.wait_received(1)
            answer = await reader.nc.request(f"{prefix}.cmd.box.get", json.dumps({"ids": [event.body["id"]]}).encode())
            assert json.loads(answer.data)["list"]
        app.stop()
        await asyncio.wait_for(running, 30)
    assert metrics.BUGS._value.get() == bugs + len(parts)
