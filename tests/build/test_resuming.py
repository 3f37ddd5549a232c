"""Thousands of mailboxes begin again in the same second: a few at once read in the log where they stand."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from service.build.incoming import Mailbox
from service.build.shared import RESUMING_LIMIT
from service.errors import Transient


class Counted:
    """A log that is asked by many; `most` of them at once."""

    def __init__(self) -> None:
        self.now = self.most = self.asked = 0

    async def resume(self, *, contest: bool) -> None:
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        raise Transient("NATS is slow")


async def wait_connected() -> None:
    """NATS is there."""


@pytest.mark.fault("F07")
async def test_mailboxes_that_begin_again_together_ask_the_log_a_few_at_once_and_none_is_left_out() -> None:
    log = Counted()
    shared = SimpleNamespace(bus=SimpleNamespace(wait_connected=wait_connected))
    shared.resuming = asyncio.Semaphore(RESUMING_LIMIT)

    async def life() -> None:
        mailbox: Any = object.__new__(Mailbox)  # of which this part needs the log alone
        mailbox._shared, mailbox._events, mailbox._contest = shared, log, True
        with pytest.raises(Transient, match="NATS is slow"):
            await mailbox._life(lambda: None)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(5 * RESUMING_LIMIT):
            group.create_task(life())
    assert (log.asked, log.most) == (5 * RESUMING_LIMIT, RESUMING_LIMIT)
