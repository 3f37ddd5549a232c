"""A message for each recipient: its own words, Message-ID and status, once over crashes, stopped by a cancellation."""

import asyncio
import json
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.observe.steps import STOP_EXIT_CODE
from service.outbound import Limit, Returned
from tests.outbound.conftest import Post, delivered, sending, soon
from tests.outbound.test_crash import run_child
from tests.outbound.test_returned import bounce
from tests.servers.nats import NatsServer
from tests.servers.smtp import Received, ScriptedRelay

TEXTS: dict[str, Any] = {
    "split": True,
    "subject": "Für {{name}}",
    "text": "Dear {{ name }},\nyour code: {{code}} {{not a name}}\n",
    "html": "<p>Dear {{name}}</p>",
    "headers": {"List-Unsubscribe": "<https://x.example/u/{{code}}>"},
}


def people(count: int) -> list[dict[str, Any]]:
    return [{"email": f"p{n}@x.example", "variables": {"name": f"P<{n}>", "code": f"c{n}"}} for n in range(count)]


async def mailing(post: Post, id: str, to: list[dict[str, Any]], **more: Any) -> None:
    body = {"id": id, "to": to, **TEXTS, **more}
    await post.bus.publish(post.bus.subjects.out(post.account), json.dumps(body).encode())


def read(mail: Received) -> EmailMessage:
    message = message_from_bytes(mail.content, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


async def test_each_recipient_gets_a_message_and_a_status_of_its_own(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    async with sending(bus, relay):
        await mailing(post, "r", people(20))
        assert set(await post.states(20)) == {("r", "sent")}
        await post.empty()
    assert sorted(mail.rcpt_to for mail in relay.messages) == sorted([f"p{n}@x.example"] for n in range(20))
    ids = {mail.rcpt_to[0]: read(mail)["Message-ID"] for mail in relay.messages}
    assert len(set(ids.values())) == 20
    for mail in relay.messages:
        (who,) = mail.rcpt_to
        n = who[1 : who.index("@")]
        message = read(mail)
        assert message["To"] == who
        assert message["Subject"] == f"Für P<{n}>"
        assert message["List-Unsubscribe"] == f"<https://x.example/u/c{n}>"
        text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
        assert text is not None
        assert html is not None
        assert text.get_content().splitlines() == [f"Dear P<{n}>,", f"your code: c{n} {{{{not a name}}}}"]
        assert html.get_content().strip() == f"<p>Dear P&lt;{n}&gt;</p>"
    assert {who: f"<{event.body.message_id}>" for event in post.events for who in delivered(event)} == ids
    assert len({event.id for event in post.events}) == 20


async def test_only_who_was_put_off_is_tried_again_with_the_same_message(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.rcpt = {"p3@x.example": ["451 4.2.0 busy", "250 OK"], "p4@x.example": ["550 5.1.1 unknown"]}
    async with sending(bus, relay):
        await mailing(post, "r", people(12))
        await post.until(lambda: {(s.state, s.body.attempt) for s in post.events} >= {("sent", 2)})
        await post.empty()
    assert sorted(mail.rcpt_to[0] for mail in relay.messages) == sorted(f"p{n}@x.example" for n in range(12) if n != 4)
    about = {(state, who) for event in post.events for who in delivered(event) for state in [event.state]}
    assert {("deferred", "p3@x.example"), ("sent", "p3@x.example"), ("failed", "p4@x.example")} <= about
    same = [event.body.message_id for event in post.events if "p3@x.example" in delivered(event)]
    assert len(set(same)) == 1


async def test_an_address_that_is_none_fails_alone_and_a_missing_blob_fails_all(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    # RFC 5891 4.2.3.2: no label begins with a combining mark.
    wrong = {"email": "x@\u0300ample.example", "variables": {"name": "x", "code": "x"}}
    async with sending(bus, relay):
        await mailing(post, "r", [*people(2), wrong])
        await post.states(3)
        missing = [{"blobId": "202611-" + "a" * 64}]
        await mailing(post, "s", people(2), attachments=missing)
        await post.until(lambda: any(event.body.id == "s" for event in post.events))
        await post.empty()
    assert sorted(event.state for event in post.events if event.body.id == "r") == ["failed", "sent", "sent"]
    (refused,) = [event for event in post.events if event.body.id == "s"]
    assert isinstance(refused.body.problems, list)
    assert refused.body.problems[0].field == "attachments"
    assert refused.body.attempt == 0


async def test_the_same_id_again_sends_nothing(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    async with sending(bus, relay):
        await mailing(post, "r", people(3))
        await post.states(3)
        await mailing(post, "r", people(9))
        await post.states(6)
        await post.empty()
    assert len(relay.messages) == 3
    assert len({event.id for event in post.events}) == 3


@pytest.mark.fault("E12")
async def test_a_cancellation_stops_a_mailing_and_tells_of_everybody_once(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.hold = asyncio.Event()
    async with sending(bus, relay) as sender:
        await mailing(post, "r", people(30))
        await relay.received(8)
        undone = await sender.waiting.cancel("r")
        assert undone is not None
        assert undone.undo_status == "pending"
        assert len(undone.cancelled) == 22
        relay.script.hold.set()
        await post.until(lambda: len({who for event in post.events for who in delivered(event)}) == 30)
        await post.empty()
        again = await sender.waiting.cancel("r")
        assert again is not None
        assert again.undo_status == "final"
    by_state: dict[str, set[str]] = {}
    for event in post.events:
        by_state.setdefault(event.state, set()).update(delivered(event))
    assert {state: len(who) for state, who in by_state.items()} == {"sent": 8, "cancelled": 22}
    assert len(relay.messages) == 8


async def test_what_is_not_sent_at_its_expiry_fails(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    relay.script.rcpt = {"p1@x.example": ["450 4.2.1 greylisted"]}
    async with sending(bus, relay):
        await mailing(post, "r", people(3), expiresAt=soon(1))
        await post.until(lambda: any(event.state == "failed" for event in post.events))
        await post.empty()
    assert len(relay.messages) == 2


async def test_who_waits_for_a_domains_turn_at_the_expiry_gets_nothing_any_more(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    async with sending(bus, relay, domains={"x.example": Limit(interval_s=3600.0)}):
        await mailing(post, "r", people(10), expiresAt=soon(2))
        await post.until(lambda: len({who for event in post.events for who in delivered(event)}) == 10)
        await post.empty()
    failed = [who for event in post.events if event.state == "failed" for who in delivered(event)]
    # Where the machine is slow it had expired before its first mail.
    assert len(relay.messages) + len(failed) == 10
    assert len(relay.messages) <= 1


async def test_a_bounce_of_one_message_names_its_recipient(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    async with sending(bus, relay):
        await post.request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}], split=True)
        await post.states(2)
        await post.empty()
    first = next(event for event in post.events if "a@x.example" in delivered(event))
    await Returned(bus, SystemClock(), suppresses=lambda _: True).heard(bounce(str(first.body.message_id)))
    await post.states(3)
    assert post.events[-1].state == "bounced"
    assert list(delivered(post.events[-1])) == ["a@x.example"]
    assert post.events[-1].body.message_id == first.body.message_id


@pytest.mark.fault("E02", "E04")
@pytest.mark.timeout(300)
async def test_killed_within_a_mailing_everybody_gets_a_message_and_twice_only_who_was_uncertain(
    nats_server: NatsServer, bus: Bus, post: Post, relay: ScriptedRelay, tmp_path: Path, soon_again: None
) -> None:
    log, where = tmp_path / "steps", (nats_server.url, bus.subjects.prefix, relay.port)
    await mailing(post, "clean", people(10))
    assert await run_child(*where, log=log) == 0
    steps = log.read_text().split()
    # In the second of its two parts, and between them.
    for name in ("intent.done", "smtp.dot.sent", "outcome.done"):
        relay.messages.clear()
        last = len(steps) - steps[::-1].index(name)
        await mailing(post, name, people(10))
        assert await run_child(*where, stop_at=last) == STOP_EXIT_CODE
        async with sending(bus, relay, retry_first_s=0.1):
            await post.empty()
        events = {event.id: event for event in post.events if event.body.id == name}.values()
        sent = [who for event in events if event.state == "sent" for who in delivered(event)]
        uncertain = [who for event in events if event.state == "uncertain" for who in delivered(event)]
        assert sorted(sent) == sorted(f"p{n}@x.example" for n in range(10)), name
        for who in sent:
            got = [read(mail)["Message-ID"] for mail in relay.messages if who in mail.rcpt_to]
            assert 1 <= len(got) <= 1 + uncertain.count(who), (name, who)
            assert len(set(got)) == 1
