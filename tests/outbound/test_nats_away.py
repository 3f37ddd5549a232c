"""NATS goes away while a mail is under way, and comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from service.bus import Bus, NatsOptions, StreamOptions, open_bus
from service.bus.errors import REQUEST_TIMEOUT_S
from tests.outbound.conftest import Post, delivered, sending
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


async def _nats_away_before_the_reply(nats: NatsServer, bus: Bus, relay: ScriptedRelay, mails: int) -> None:
    """A sender to whom the relay answers while NATS is dead, for so many mails; and when it is back one more."""
    relay.script.hold = asyncio.Event()

    async def cut_off() -> None:
        async with sending(bus, relay, retry_first_s=0.5):
            await relay.received(mails)
            await nats.kill()
            assert relay.script.hold is not None
            relay.script.hold.set()
            try:
                await asyncio.sleep(REQUEST_TIMEOUT_S + 2)  # a question waits so long by itself
            finally:
                await nats.start()
            await _all_sent(bus)

    with suppress(ExceptionGroup):
        await cut_off()
    await bus.wait_connected()
    async with sending(bus, relay):
        await Post(bus).empty(60)


@pytest.mark.fault("E02")
async def test_nats_killed_before_the_reply_who_was_put_off_is_kept_and_nobody_in_doubt(
    own_nats: NatsServer, own_bus: Bus, relay: ScriptedRelay
) -> None:
    """Where somebody waits for another try, the request itself is to be stored, before the outcome."""
    await Post(own_bus).request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
    relay.script.rcpt = {"b@x.example": ["450 4.2.1 come back", "250 OK"]}
    await _nats_away_before_the_reply(own_nats, own_bus, relay, 1)
    post = Post(own_bus)
    await post.watch()
    await post.states(3)
    said = {(event.state, who) for event in post.events for who in delivered(event)}
    assert said == {("sent", "a@x.example"), ("deferred", "b@x.example"), ("sent", "b@x.example")}
    assert [mail.rcpt_to for mail in relay.messages] == [["a@x.example"], ["b@x.example"]]


@pytest.mark.fault("E02")
async def test_nats_killed_before_the_relay_leaves_one_in_doubt_the_other_is_not(
    own_nats: NatsServer, own_bus: Bus, relay: ScriptedRelay
) -> None:
    """Where somebody is in doubt, NATS is asked for reports on his mail, before the outcome is stored."""
    await Post(own_bus).request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}], split=True)
    relay.script.cut = ["before_reply"]
    await _nats_away_before_the_reply(own_nats, own_bus, relay, 2)
    post = Post(own_bus)
    await post.watch()
    await post.states(3)
    (doubtful,) = [who for event in post.events if event.state == "uncertain" for who in delivered(event)]
    assert sorted(event.state for event in post.events) == ["sent", "sent", "uncertain"]
    assert [mail.rcpt_to for mail in relay.messages[2:]] == [[doubtful]]


async def _all_sent(bus: Bus) -> None:
    async with asyncio.timeout(60):
        while await bus.pending(bus.subjects.stream_out, ">"):  # noqa: ASYNC110 a stream rings no bell
            await asyncio.sleep(0.05)
