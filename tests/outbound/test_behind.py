"""Requests whose mails share a connection, one behind the other: each is accounted for by itself."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.bus import Bus
from service.errors import Transient
from service.outbound.retry import Phase
from service.outbound.sends import SendRecord, Sends
from tests.outbound.conftest import Post, sending
from tests.servers.scripted import serving
from tests.servers.smtp import ScriptedRelay
from tests.servers.smtp_behind import SECOND, Watching
from tests.servers.smtp_steps import OFFERS, Act, Step

NUMBERS = range(1, 5)
BECOMES = {
    Act.REFUSE: ["failed"],
    Act.DEFER: ["deferred", "sent"],
    Act.CLOSE: ["deferred", "sent"],
    Act.DROP: ["uncertain"],
}


@pytest.fixture(autouse=True)
def slow_intents(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next mail is made while an intent is written, however quick NATS is."""
    put = Sends.put

    async def slow(sends: Sends, key: str, record: SendRecord, revision: int) -> int:
        if record.phase is Phase.INTENT:
            await asyncio.sleep(0.1)
        return await put(sends, key, record, revision)

    monkeypatch.setattr(Sends, "put", slow)


async def send_all(bus: Bus, post: Post, relay: Watching, *, events: int, **options: Any) -> dict[int, list[str]]:
    """Four requests by one connection; the states of each."""
    for number in NUMBERS:
        await post.request(f"r{number}", to=[{"email": f"{number}@x.example"}])
    async with sending(bus, relay, smtp={"connections": 1}, uncertain="hold", **options):
        await post.states(events)
    assert relay.behind[SECOND - 1].startswith(b"RSET\r\nMAIL FROM:")
    return {number: [event.state for event in post.events if event.body.id == f"r{number}"] for number in NUMBERS}


@pytest.mark.fault("E06")
@pytest.mark.parametrize("chunks", [True, False], ids=["bdat", "data"])
@pytest.mark.parametrize("then", list(BECOMES))
async def test_what_becomes_of_one_mail_is_not_said_of_the_next(bus: Bus, post: Post, then: Act, chunks: bool) -> None:
    async with serving(Watching(offers=OFFERS if chunks else ("PIPELINING",), then=then)) as relay:
        said = await send_all(bus, post, relay, events=3 + len(BECOMES[then]), retry_first_s=0.1)
    assert said == {number: ["sent"] for number in NUMBERS} | {SECOND: BECOMES[then]}
    copies = {number: len(relay.copies(f"{number}@x.example")) for number in NUMBERS}
    assert copies == dict.fromkeys(NUMBERS, 1) | {SECOND: "sent" in BECOMES[then]}


@pytest.mark.fault("E09")
@pytest.mark.parametrize("step", [Step.RSET, Step.MAIL, Step.RCPT, Step.GO])
async def test_a_connection_that_is_lost_behind_an_answer_makes_nobody_uncertain(
    bus: Bus, post: Post, step: Step
) -> None:
    async with serving(Watching(next=(step, Act.DROP))) as relay:
        said = await send_all(bus, post, relay, events=4)
    assert said == {number: ["sent"] for number in NUMBERS}
    assert [len(relay.copies(f"{number}@x.example")) for number in NUMBERS] == [1] * 4


async def test_a_mail_that_waited_for_a_connection_past_its_time_is_not_sent(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.hold = asyncio.Event()
    over = datetime.now(UTC) + timedelta(seconds=1)
    async with sending(bus, relay, smtp={"connections": 1}):
        await post.request("first")
        await relay.received(1)
        await post.request("code", expiresAt=over.isoformat().replace("+00:00", "Z"))
        await asyncio.sleep((over - datetime.now(UTC)).total_seconds() + 0.1)
        relay.script.hold.set()
        relay.script.hold = None
        await post.states(2)
        await post.empty()
    assert {(event.body.id, event.state) for event in post.events} == {("first", "sent"), ("code", "failed")}
    assert len(relay.messages) == 1


async def test_mails_that_wait_for_a_connection_go_back_to_the_queue_when_the_relay_is_lost(
    bus: Bus, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody need hear of a relay that is back in a moment."""
    monkeypatch.setattr("service.outbound.deliver.AGAIN_S", 0.2)
    async with serving(Watching(go=asyncio.Event())) as relay:
        for number in NUMBERS:
            await post.request(f"r{number}", to=[{"email": f"{number}@x.example"}])
        async with sending(bus, relay, smtp={"connections": 1}, uncertain="hold") as sender:
            await relay.holds.wait()
            sender._deliverer.relays.lost(Transient("gone"))
            assert relay.go is not None
            relay.go.set()
            await post.states(2)
            sender._deliverer.relays.found()
            await post.states(4)
    assert {event.state for event in post.events} == {"sent"}
    assert [len(relay.copies(f"{number}@x.example")) for number in NUMBERS] == [1] * 4
