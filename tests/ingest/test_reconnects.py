"""Hundreds of connections that break: nothing of them is left."""

import asyncio
import gc
import os
from dataclasses import replace

import pytest

from service.bus import Bus
from service.imap import Session
from tests.ingest import harness
from tests.ingest.harness import Box, following
from tests.ingest.view import mail
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader, until


def left() -> tuple[int, int, int]:
    """Tasks, file descriptors, sessions."""
    gc.collect()
    sessions = sum(isinstance(one, Session) for one in gc.get_objects())
    return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), sessions


@pytest.mark.fault("F09")
async def test_hundreds_of_reconnects_leave_no_task_no_socket_and_no_session(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    connects, limit = 0, 20

    async def break_off(connection: Connection, tag: str, _: str) -> bool:
        nonlocal connects
        connects += 1
        if connects >= limit:
            return False
        connection.cut()
        return True

    imap_stub.messages = {1: mail(1)}
    imap_stub.hooks["IDLE"] = break_off
    monkeypatch.setattr(harness, "QUICK", replace(harness.QUICK, first_s=0.001, max_s=0.002))
    box = Box(imap_stub.port)
    async with following(bus, box):
        await until(lambda: any(one.idling for one in imap_stub.connections))
        box.states.clear()  # its errors hold the connections that they are about
        before = left()
        limit = 300
        imap_stub.connections[0].cut()
        await until(lambda: connects >= limit and any(one.idling for one in imap_stub.connections), limit_s=60)
        box.states.clear()
        after = left()
        await imap_stub.deliver(2, mail(2))
        assert len(await reader.wait_received(2)) == 2
    assert all(now <= then + 1 for now, then in zip(after, before, strict=True)), (before, after)
