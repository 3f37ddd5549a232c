"""BDAT where it is offered: what goes out, and relays that only say they know it."""

import asyncio
from collections.abc import Mapping

import pytest

from service.clock import SystemClock
from service.contract import Security
from service.smtp import DotUnanswered, Relay, Reply, SmtpOptions
from tests.servers.smtp_steps import OFFERS, Act, Step, StepRelay, StepRelayMaker
from tests.smtp.harness import MESSAGE, Dot

# Longer than what goes with its end.
LONG = b"Subject: x\r\n\r\n" + b".\r\n..\r\n.x\r\n\r\n" * 3_000


def client(server: StepRelay) -> Relay:
    return Relay(SmtpOptions("a", "127.0.0.1", server.port, Security.NONE, login=False), SystemClock())


async def deliver(server: StepRelay, data: bytes = MESSAGE) -> dict[str, Reply]:
    relay = client(server)
    try:
        return await relay.deliver("me@x", ["a@x", "b@x"], data, before_final_dot=Dot())
    finally:
        await relay.close()


def chunks(server: StepRelay) -> list[str]:
    return [line for line in server.commands if line.startswith(("BDAT", "DATA"))]


async def test_a_message_goes_in_one_chunk_and_dots_as_they_are(step_relay: StepRelayMaker) -> None:
    server = await step_relay()
    data = b"Subject: x\r\n\r\n.\r\n..\r\n.x"
    assert all(reply.accepted for reply in (await deliver(server, data)).values())
    assert chunks(server) == ["BDAT 1", f"BDAT {len(data) + 1} LAST"]
    assert server.copies("a@x") == [data + b"\r\n"]


async def test_a_long_message_goes_ahead_of_its_end_while_the_intent_is_written(step_relay: StepRelayMaker) -> None:
    server = await step_relay()
    assert all(reply.accepted for reply in (await deliver(server, LONG)).values())
    assert chunks(server) == ["BDAT 1", f"BDAT {len(LONG) - 1} LAST"]
    assert server.copies("b@x") == [LONG]


async def test_a_connection_is_used_again_after_chunks(step_relay: StepRelayMaker) -> None:
    server = await step_relay(end={"": ["452 4.3.1 full", "250 OK"]})
    relay = client(server)
    replies = [
        (await relay.deliver("me@x", ["a@x"], data, before_final_dot=Dot()))["a@x"].code
        for data in (MESSAGE, LONG, MESSAGE)
    ]
    await relay.close()
    assert replies == [452, 250, 250]
    assert [line for line in server.commands if line.startswith(("EHLO", "RSET"))] == ["EHLO [127.0.0.1]", "RSET"]
    assert server.copies("a@x") == [LONG, MESSAGE]


@pytest.mark.parametrize("offers", [("CHUNKING",), ("PIPELINING",)])
async def test_without_chunking_or_pipelining_it_is_data(step_relay: StepRelayMaker, offers: tuple[str, ...]) -> None:
    server = await step_relay(offers=offers)
    await deliver(server)
    assert chunks(server) == ["DATA"]


async def test_who_offers_bdat_and_does_not_know_it_gets_data_and_reads_no_commands_in_the_message(
    step_relay: StepRelayMaker,
) -> None:
    server = await step_relay(boasts=True)
    relay, dot = client(server), Dot()
    for _ in range(2):
        replies = await relay.deliver("me@x", ["a@x"], b"MAIL FROM:<e@x>\r\n", before_final_dot=dot)
        assert replies["a@x"].accepted
    await relay.close()
    assert chunks(server) == ["BDAT 1", "DATA", "DATA"]
    assert server.copies("a@x") == [b"MAIL FROM:<e@x>\r\n"] * 2
    # The intent was written once for each.
    assert not any("<e@x>" in line for line in server.commands)
    assert len(dot.calls) == 2


async def test_who_offers_bdat_and_drops_the_connection_at_it_gets_data_at_once(
    step_relay: StepRelayMaker,
) -> None:
    server = await step_relay(at=Step.GO, do=Act.DROP)
    relay = client(server)
    assert (await relay.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot()))["a@x"].accepted
    await relay.close()
    assert chunks(server) == ["BDAT 1", "DATA"]


@pytest.mark.parametrize("offers", [OFFERS, ("PIPELINING",)])
@pytest.mark.parametrize(("do", "code"), [(Act.REFUSE, 550), (Act.DEFER, 451), (Act.CLOSE, 421)])
async def test_a_refusal_in_the_midst_settles_everybody_and_nobody_has_the_message(
    step_relay: StepRelayMaker, offers: tuple[str, ...], do: Act, code: int
) -> None:
    server = await step_relay(at=Step.BODY, do=do, offers=offers)

    async def wait(refused_so_far: Mapping[str, Reply]) -> None:
        # Until it is said: what comes before the end is no answer to the end.
        while server.times:  # noqa: ASYNC110 nothing rings
            await asyncio.sleep(0)

    relay = client(server)
    replies = await relay.deliver("me@x", ["a@x", "b@x"], LONG, before_final_dot=wait)
    assert {reply.code for reply in replies.values()} == {code}
    assert not server.taken
    assert (await relay.deliver("me@x", ["a@x"], LONG, before_final_dot=Dot()))["a@x"].accepted
    await relay.close()


@pytest.mark.fault("E01")
@pytest.mark.parametrize("do", [Act.DROP, Act.TAKE_AND_DROP])
async def test_lost_after_the_last_chunk_is_uncertain_whatever_the_relay_did(
    step_relay: StepRelayMaker, do: Act
) -> None:
    for data in (MESSAGE, LONG):
        server = await step_relay(at=Step.END, do=do)
        with pytest.raises(DotUnanswered):
            await deliver(server, data)
        assert len(server.taken) == (0 if do is Act.DROP else 2)


async def test_what_fails_before_the_end_leaves_no_message(step_relay: StepRelayMaker) -> None:
    class LostError(Exception):
        pass

    async def fail(refused: Mapping[str, Reply]) -> None:
        raise LostError

    server = await step_relay()
    for data in (MESSAGE, LONG):
        relay = client(server)
        with pytest.raises(LostError):
            await relay.deliver("me@x", ["a@x"], data, before_final_dot=fail)
    assert not server.taken
