"""Connections for commands of many accounts: left when they have been idle for long."""

import asyncio

import pytest

from service.clock import SystemClock
from service.imap import WritingSession
from service.imap.pool import LEAVE_AT_ONCE, leave
from tests.imap.test_session import options
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import until


async def test_a_server_that_does_not_answer_to_logout_holds_up_no_other(imap_stub: ImapStub) -> None:
    leaving = 0

    async def stay(_connection: Connection, _tag: str, _arguments: str) -> bool:
        nonlocal leaving
        leaving += 1
        return True

    imap_stub.hooks["LOGOUT"] = stay
    sessions = [await WritingSession.open(options(imap_stub.port), clock=SystemClock()) for _ in range(40)]
    leaves = asyncio.create_task(leave(sessions))
    # None of them is answered, and none waits for another but those beyond what are left at a time.
    await until(lambda: leaving == LEAVE_AT_ONCE)
    assert not any(session.protocol.failure for session in sessions[LEAVE_AT_ONCE:])
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    assert all(session.protocol.failure is not None for session in sessions)
