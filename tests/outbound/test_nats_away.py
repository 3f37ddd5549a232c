"""NATS goes away while a mail is under way, and comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from service.bus import Bus, NatsOptions, StreamOptions, open_bus
from tests.outbound.conftest import Post, sending
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay


@pytest.fixture
async def own_bus(own_nats: NatsServer, prefix: str) -> AsyncIterator[Bus]:
    async with open_bus(NatsOptions(servers=(own_nats.url,), prefix=prefix), StreamOptions()) as opened:
        yield opened


@pytest.mark.fault("E02")
async def test_nats_killed_between_dot_and_reply_the_outcome_is_kept_and_stored_later(
    own_nats: NatsServer, own_bus: Bus, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply comes while NATS is dead. It is held until NATS is back: no `uncertain`, no second mail.

    That takes longer than an account has whose work others end.
    """
    monkeypatch.setattr("service.outbound.sender.FINISH_TIMEOUT_S", 0.3)
    await Post(own_bus).request("r")
    relay.script.hold = asyncio.Event()

    async def cut_off() -> None:
        async with sending(own_bus, relay):
            await relay.received(1)
            await own_nats.kill()
            assert relay.script.hold is not None
            relay.script.hold.set()
            await asyncio.sleep(10)  # the outcome is tried in vain meanwhile
            await own_nats.start()
            await _all_sent(own_bus)

    # The half that looks for news ends with NATS, as Transient, and the supervisor starts it again; what is in hand
    # is finished first.
    with suppress(ExceptionGroup):
        await cut_off()
    await own_bus.wait_connected()
    async with sending(own_bus, relay):
        await _all_sent(own_bus)
    post = Post(own_bus)
    await post.watch()
    assert await post.states(1) == [("r", "sent")]
    await post.empty()
    assert len(relay.messages) == 1
    assert len(post.events) == 1


async def _all_sent(bus: Bus) -> None:
    async with asyncio.timeout(60):
        while await bus.pending(bus.subjects.stream_out, ">"):  # noqa: ASYNC110 a stream rings no bell
            await asyncio.sleep(0.05)
