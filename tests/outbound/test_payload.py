"""What one NATS message cannot hold: said, kept or refused in pieces that it can; no connection ends by it."""

import json
from pathlib import Path

import pytest

from service.bus import Bus, NatsOptions, StreamOptions, open_bus
from service.clock import SystemClock
from service.contract import decode_request, request_key
from service.outbound import Returned
from service.outbound.replies import LARGEST_BYTES, short, too_wide
from tests.meaning.mails import dsn
from tests.outbound.conftest import Post, delivered, sending
from tests.outbound.test_returned import announced
from tests.outbound.test_strays import strays
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay

LONGEST = "\U0001f4ec" * 512


@pytest.mark.fault("D12")
async def test_a_thousand_recipients_with_the_longest_replies_fit_into_their_record_and_status(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    to = [f"recipient-{n}@{'x' * 40}.example" for n in range(1000)]
    for n, one in enumerate(to):
        relay.script.rcpt[one] = [f"550 {LONGEST}" if n % 2 else f"451 {LONGEST}"]
    async with sending(bus, relay, retry_first_s=3600):
        await post.request("r", to=[{"email": one} for one in to])
        await post.states(2)
    said = {event.state: event.body.delivery_status for event in post.events}
    assert {state: len(of) for state, of in said.items()} == {"deferred": 500, "failed": 500}
    assert all(one.smtp_reply.startswith("451 \U0001f4ec") for one in said["deferred"].values())
    assert bus.nc.stats["reconnects"] == 0


@pytest.mark.fault("D12", "E14")
async def test_of_what_is_wrong_a_status_says_no_more_than_there_is_room_for(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    wrong = [{"email": "x"} for _ in range(20_000)]
    async with sending(bus, relay):
        await post.request("many", to=wrong)
        await post.request("long", **{"é" * 100_000: 1})
        await post.states(2)
        await post.until(lambda: len(post.dead) == 2)
    problems = {event.body.id: event.body.problems for event in post.events}
    assert {id: len(of) for id, of in problems.items()} == {"many": 50, "long": 1}
    assert bus.nc.stats["reconnects"] == 0


@pytest.mark.fault("D12", "E14")
async def test_a_wrong_request_that_fills_a_message_is_dead_whole(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    async with sending(bus, relay):
        body = {"id": "é" * 255, "to": [{"email": "a@x.example"}], "ä" * 500: 1, "text": ""}
        room = bus.max_payload - 600 - len(json.dumps(body, ensure_ascii=False).encode())
        payload = json.dumps(body | {"text": "t" * room}, ensure_ascii=False).encode()
        await bus.publish(bus.subjects.out("a"), payload)
        assert await post.states(1) == [("é" * 255, "failed")]
        await post.until(lambda: len(post.dead) == 1)
        await post.empty()
    assert await bus.blobs().get((post.dead[0].headers or {})["Mail-Blob-Id"]) == payload


def test_of_few_recipients_every_word_is_kept_and_of_many_whole_characters() -> None:
    assert short(LONGEST, 1) == LONGEST
    cut = short(LONGEST, 1000)
    assert LONGEST.startswith(cut)
    assert 96 <= len(cut.encode()) <= 100


def test_a_server_that_takes_less_refuses_too_many_recipients_before_anything_is_tried() -> None:
    body = {"to": [{"email": f"{n}@x.example"} for n in range(1000)], "text": "t"}
    request = decode_request(json.dumps(body).encode())
    assert too_wide(request, LARGEST_BYTES) == []
    assert [one.field for one in too_wide(request, 256 * 1024)] == ["to"]
    few = decode_request(json.dumps(body | {"to": body["to"][:10]}).encode())
    assert too_wide(few, 256 * 1024) == []


@pytest.mark.fault("D12", "E16")
async def test_what_a_report_names_is_remembered_within_bounds(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    async with sending(bus, relay):
        await post.request("r")
        await post.states(1)
        await post.empty()
    returned = Returned(bus, SystemClock(), suppresses=lambda _: False)
    for start in range(0, 1000, 100):
        names = [f"{n}@{'.'.join(['x' * 60] * 3)}.example" for n in range(start, start + 100)]
        groups = "\n".join(f"Final-Recipient: rfc822; {one}\nAction: failed\nStatus: 5.1.1\n" for one in names)
        await returned.heard(announced(dsn(groups, returned=f"Message-ID: <{post.events[0].body.message_id}>")))
    record = await bus.key_value(bus.subjects.sends).get(request_key("a", "r"))
    assert record is not None
    # A request's own recipients, whatever a report names.
    assert json.loads(record.value)["returned"] == ["bounced a@x.example"]


@pytest.mark.fault("D12", "E14")
async def test_where_nats_takes_less_who_is_refused_for_nobody_is_not_named_and_others_are_refused_after_it(
    tmp_path: Path, prefix: str
) -> None:
    server = NatsServer(tmp_path, {"max_payload": 64 * 1024})
    await server.start()
    try:
        async with open_bus(NatsOptions(servers=(server.url,), prefix=prefix), StreamOptions()) as bus:
            post = Post(bus, account="nobody")
            await post.watch()
            await post.request("wide", to=[{"email": f"{'x' * 20}{n}@x.example"} for n in range(1000)])
            await post.request("narrow")
            await strays(bus).refuse_all()
            assert await post.states(2) == [("wide", "failed"), ("narrow", "failed")]
            assert [len(delivered(event)) for event in post.events] == [0, 1]
    finally:
        await server.stop()
