"""Many messages under way to a stream, each with its own answer."""

import asyncio
from collections.abc import Awaitable, Callable

import nats.errors
import pytest
from nats.aio.msg import Msg

from service.bus import Bus
from service.bus.frames import FENCE, OutMessage
from service.bus.window import Window
from tests.bus.conftest import opened
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy, Way


def messages(bus: Bus, count: int, size: int = 10) -> list[OutMessage]:
    return [
        OutMessage(bus.subjects.status("a", "sent"), b"%06d" % n + b"x" * size, {"n": str(n)}) for n in range(count)
    ]


async def test_each_message_has_its_own_answer_in_order(bus: Bus) -> None:
    answers = await Window(bus.nc).publish(messages(bus, 2_500))
    seqs = [answer["seq"] for answer in answers]
    assert seqs == list(range(seqs[0], seqs[0] + 2_500))


async def test_a_refusal_is_the_answer_of_its_message_alone(bus: Bus) -> None:
    first, second, third = messages(bus, 3)
    refused = OutMessage(second.subject, second.payload, {FENCE: "123456"})
    answers = await Window(bus.nc).publish([first, refused, third])
    assert ["error" in answer for answer in answers] == [False, True, False]


async def test_nothing_to_publish_is_answered_at_once(bus: Bus) -> None:
    assert await Window(bus.nc).publish([]) == []


@pytest.mark.fault("D04")
async def test_a_subject_of_no_stream_raises_and_does_not_wait(bus: Bus) -> None:
    with pytest.raises(nats.errors.NoRespondersError):
        await Window(bus.nc).publish([OutMessage("no.stream.here", b"", {})])


@pytest.mark.fault("D04")
@pytest.mark.parametrize("word", [b"", b"seen, thank you", b"[]", b'{"error": "none"}', b"{}"])
async def test_what_others_who_hear_of_it_answer_is_no_answer(bus: Bus, word: bytes) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(word)
        await message.respond(b'{"stream": "S", "seq": 7}')

    hears = await bus.nc.subscribe("no.stream.here", cb=answer)
    await bus.nc.flush()
    answers = await Window(bus.nc).publish([OutMessage("no.stream.here", b"", {})] * 3)
    await hears.unsubscribe()
    assert [answer["seq"] for answer in answers] == [7, 7, 7]


@pytest.mark.fault("D03", "D04")
async def test_answers_that_do_not_come_raise_and_those_of_the_next_question_are_not_mixed_with_them(
    bus: Bus,
    nats_server: NatsServer,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.bus.window.REQUEST_TIMEOUT_S", 0.5)
    proxy = await fault_proxy("127.0.0.1", nats_server.port)
    async with opened(f"nats://127.0.0.1:{proxy.port}", bus.subjects.prefix, streams=None) as behind:
        window = Window(behind.nc)
        before = await window.publish(messages(bus, 1))
        proxy.stall(Way.TO_CLIENT)
        with pytest.raises(TimeoutError):
            await window.publish(messages(bus, 3))
        monkeypatch.setattr("service.bus.window.REQUEST_TIMEOUT_S", 10)
        proxy.heal()
        after = await window.publish(messages(bus, 2))
        assert [answer["seq"] for answer in after] == [before[0]["seq"] + 4, before[0]["seq"] + 5]
        assert window._asked == {}


async def test_who_is_cancelled_leaves_nothing_behind(bus: Bus) -> None:
    window = Window(bus.nc)
    asking = asyncio.create_task(window.publish(messages(bus, 500)))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert window._asked == {}
    assert len(await window.publish(messages(bus, 2))) == 2
