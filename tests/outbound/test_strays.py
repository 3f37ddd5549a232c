"""Requests for accounts that nobody has: each ends with a status and a dead letter, and in nobody's way."""

import asyncio
import json

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.outbound import Strays
from tests.outbound.conftest import Post, sending
from tests.servers.smtp import ScriptedRelay


def strays(bus: Bus, *, agreed: bool = True, coming: str = "") -> Strays:
    async def is_coming(account: str) -> bool:
        return account == coming

    return Strays(bus, SystemClock(), sends=lambda account: account == "a", decides=lambda _: agreed, coming=is_coming)


@pytest.mark.fault("E14", "G11")
async def test_a_request_for_an_unknown_account_fails_and_lies_whole_in_the_dead_letters(bus: Bus, post: Post) -> None:
    post.account = "nobody"
    await post.request("r1")
    await strays(bus).refuse_all()
    assert await post.states(1) == [("r1", "failed")]
    (event,) = post.events
    assert event.body.undo_status == "final"
    assert isinstance(event.body.problems, list)
    assert [problem.field for problem in event.body.problems] == ["account"]
    assert set(event.body.delivery_status) == {"a@x.example"}
    await post.until(lambda: bool(post.dead))
    (dead,) = post.dead
    assert dead.subject == f"{bus.subjects.prefix}.dead.unknown-account"
    assert json.loads(dead.data)["id"] == "r1"
    await post.empty()


async def test_a_stray_comes_to_its_end_by_the_bell(bus: Bus, post: Post) -> None:
    running = asyncio.create_task(strays(bus).run())
    post.account = "nobody"
    await post.until(lambda: True)
    await post.request("r1")
    assert await post.states(1) == [("r1", "failed")]
    running.cancel()


async def test_the_same_stray_twice_has_one_status(bus: Bus, post: Post) -> None:
    post.account = "nobody"
    await post.request("r1")
    await strays(bus).refuse_all()
    await post.request("r1")
    await strays(bus).refuse_all()
    await post.empty()
    assert {event.id for event in post.events} == {post.events[0].id}


async def test_what_is_no_request_and_no_account_is_buried_without_a_status(bus: Bus, post: Post) -> None:
    post.account = "a" * 65
    await post.request("r1")
    await strays(bus).refuse_all()
    await post.until(lambda: bool(post.dead))
    await post.empty()
    assert post.events == []


@pytest.mark.fault("G11")
@pytest.mark.parametrize("wildcard", ["*", ">"])
async def test_a_wildcard_as_an_account_touches_nobody_elses_requests(
    bus: Bus, post: Post, relay: ScriptedRelay, wildcard: str
) -> None:
    await post.request("r1")
    subject = f"{bus.subjects.prefix}.out.{wildcard}".encode()
    await bus.nc._send_command(b"PUB %b 2\r\n{}\r\n" % subject)
    await bus.nc.flush()
    await strays(bus).refuse_all()
    assert post.events == []
    async with sending(bus, relay):
        assert await post.states(1) == [("r1", "sent")]
    async with asyncio.timeout(20):
        while await bus.pending(bus.subjects.stream_out, bus.subjects.out("a")):  # noqa: ASYNC110 nothing rings
            await asyncio.sleep(0.02)
    assert await bus.pending(bus.subjects.stream_out, ">") == 1


async def test_known_accounts_are_left_alone(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    await post.request("r1")
    await strays(bus).refuse_all()
    async with sending(bus, relay):
        assert await post.states(1) == [("r1", "sent")]


async def test_while_the_processes_know_different_accounts_nothing_is_refused(bus: Bus, post: Post) -> None:
    post.account = "perhaps-of-another"
    await post.request("r1")
    await strays(bus, agreed=False).refuse_all()
    assert await bus.pending(bus.subjects.stream_out, bus.subjects.out("*")) == 1
    assert post.events == []


async def test_an_account_that_was_added_and_is_not_heard_of_yet_is_no_stray(bus: Bus, post: Post) -> None:
    post.account = "new"
    await post.request("r1")
    await strays(bus, coming="new").refuse_all()
    assert await bus.pending(bus.subjects.stream_out, bus.subjects.out("*")) == 1
    assert post.events == []


async def test_urgent_requests_are_their_accounts(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    await bus.publish(bus.subjects.out_urgent("unknown"), b'{"id": "r", "to": [{"email": "a@x.example"}], "text": "t"}')
    await bus.publish(bus.subjects.out_urgent("a"), b'{"id": "r", "to": [{"email": "a@x.example"}], "text": "t"}')
    await strays(bus).refuse_all()
    async with sending(bus, relay):
        await post.states(2)
        await post.empty()
    assert sorted((event.headers["ce-source"].rpartition("/")[2], event.state) for event in post.events) == [
        ("a", "sent"),
        ("unknown", "failed"),
    ]
