"""Requests on a real bus, a scripted relay, and the status events that come of it."""

import asyncio
import json
from datetime import UTC, datetime
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import trustme

from service.bus import Bus
from service.clock import SystemClock
from service.contract import Security
from service.errors import AuthRefused, Permanent
from service.smtp import RelayUnreachable
from tests.outbound.conftest import Post, delivered, found_lost, sending, soon
from tests.servers.smtp import RelayMaker, ScriptedRelay
from tests.smtp.harness import client_context, server_context

MISSING = "202611-" + "a" * 64


async def test_a_request_becomes_a_mail_and_a_status(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    async with sending(bus, relay):
        await post.request(
            "r1", subject="Grüße", to=[{"email": "a@x.example", "name": "A"}], bcc=[{"email": "b@x.example"}]
        )
        assert await post.states(1) == [("r1", "sent")]
        await post.empty()
    (mail,) = relay.messages
    assert mail.rcpt_to == ["a@x.example", "b@x.example"]
    assert mail.mail_from == "me@example.com"
    assert b"b@x.example" not in mail.content
    (event,) = post.events
    assert event.body.undo_status == "final"
    assert delivered(event) == {"a@x.example": "unknown", "b@x.example": "unknown"}
    assert event.body.delivery_status["a@x.example"].smtp_reply == "250 2.0.0 queued"
    assert f"<{event.body.message_id}>" == message_from_bytes(mail.content)["Message-ID"]
    assert event.headers["ce-type"] == "mailbus.status"
    assert event.headers["ce-source"] == f"/{bus.subjects.prefix}/a"
    assert event.body.attempt == 1


async def test_what_was_queued_before_the_sender_came_is_sent(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    for n in range(10):
        await post.request(f"r{n}")
    async with sending(bus, relay):
        states = await post.states(10)
    assert sorted(states) == [(f"r{n}", "sent") for n in range(10)]


async def test_the_id_may_come_in_the_header_or_be_made(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    async with sending(bus, relay):
        await post.request(None, {"Nats-Msg-Id": "from-header"})
        assert await post.states(1) == [("from-header", "sent")]
        await post.request(None)
        made = (await post.states(2))[1]
    assert made[1] == "sent"
    assert len(made[0]) == 32


@pytest.mark.fault("E13")
async def test_the_same_id_is_sent_once_and_answered_with_the_first_status(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    async with sending(bus, relay):
        await post.request("same")
        await post.request("same")
        await post.states(1)
        await post.request("same", subject="another")
        await post.states(3)
        await post.empty()
    assert len(relay.messages) == 1
    assert {event.id for event in post.events} == {post.events[0].id}


@pytest.mark.fault("E04")
async def test_each_recipient_has_its_own_outcome_and_only_the_deferred_is_tried_again(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.rcpt = {"b@x.example": ["451 4.2.0 busy", "250 OK"], "c@x.example": ["550 5.1.1 unknown"]}
    async with sending(bus, relay):
        await post.request("r", to=[{"email": f"{who}@x.example"} for who in "abc"])
        await post.states(4)
        await post.empty()
    assert [mail.rcpt_to for mail in relay.messages] == [["a@x.example"], ["b@x.example"]]
    assert relay.messages[0].content == relay.messages[1].content
    by_state = {(event.state, event.body.attempt): delivered(event) for event in post.events}
    assert by_state == {
        ("sent", 1): {"a@x.example": "unknown"},
        ("deferred", 1): {"b@x.example": "queued"},
        ("failed", 1): {"c@x.example": "no"},
        ("sent", 2): {"b@x.example": "unknown"},
    }
    deferred = next(event for event in post.events if event.state == "deferred")
    assert deferred.body.delivery_status["b@x.example"].smtp_reply == "451 4.2.0 busy"
    assert deferred.body.undo_status == "pending"
    assert isinstance(deferred.body.next_attempt_at, object)


async def test_a_request_that_expires_fails_with_the_last_reply(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    relay.script.rcpt = {"a@x.example": ["450 4.2.1 greylisted"]}
    async with sending(bus, relay):
        await post.request("r", expiresAt=soon(1))
        await post.until(lambda: any(event.state == "failed" for event in post.events))
        await post.empty()
    last = post.events[-1]
    assert last.body.delivery_status["a@x.example"].smtp_reply == "450 4.2.1 greylisted"
    assert isinstance(last.body.problems, list)
    assert last.body.problems[0].field == "expiresAt"
    # Nothing was tried then.
    assert last.body.attempt == max(event.body.attempt for event in post.events[:-1])
    assert not relay.messages


async def test_what_is_too_old_when_it_is_taken_is_not_sent(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    async with sending(bus, relay):
        await post.request("r", expiresAt=soon(-60))
        assert await post.states(1) == [("r", "failed")]
        await post.empty()
    assert not relay.connections


@pytest.mark.fault("E01")
async def test_an_answer_lost_after_the_dot_is_uncertain_then_tried_with_the_same_message_id(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay):
        await post.request("r")
        assert await post.states(2) == [("r", "uncertain"), ("r", "sent")]
        await post.empty()
    first, second = relay.messages
    assert first.content == second.content
    assert delivered(post.events[0]) == {"a@x.example": "queued"}


@pytest.mark.fault("E01")
async def test_by_policy_hold_an_uncertain_mail_is_not_sent_again_and_fails_at_its_expiry(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay, uncertain="hold"):
        await post.request("r", expiresAt=soon(2))
        assert await post.states(2) == [("r", "uncertain"), ("r", "failed")]
        await post.empty()
    assert len(relay.messages) == 1
    assert delivered(post.events[0]) == {"a@x.example": "unknown"}


@pytest.mark.fault("E03")
async def test_a_slow_relay_gets_its_time_and_the_job_does_not_come_back(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ack_wait shrunk to 2 s, the answer to the dot held for more than two of them: DESIGN's 30 s and 9 min 50 s."""
    monkeypatch.setattr("service.bus.queue.ACK_WAIT_S", 2.0)
    monkeypatch.setattr("service.outbound.hands.ACK_WAIT_S", 2.0)
    relay.script.hold = asyncio.Event()
    async with sending(bus, relay):
        await post.request("r")
        await relay.received(1)
        await asyncio.sleep(5)  # the time itself is what is tested
        consumer = await bus.nc.jetstream().consumer_info(bus.subjects.stream_out, f"out-{post.account}")
        assert (consumer.delivered.consumer_seq, consumer.num_redelivered) == (1, 0)
        relay.script.hold.set()
        assert await post.states(1) == [("r", "sent")]
        await post.empty()
    assert relay.data_commands == 1


async def test_a_wrong_request_fails_with_every_problem_and_lies_whole_in_the_dead_letters(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    async with sending(bus, relay):
        await post.request("bad", to=[{"email": "no address"}], subject="a\nb")
        assert await post.states(1) == [("bad", "failed")]
        await bus.publish(bus.subjects.out("a"), b"\xff{not json")
        await post.until(lambda: len(post.dead) == 2)
        await post.empty()
    problems = post.events[0].body.problems
    assert isinstance(problems, list)
    assert {problem.field for problem in problems} == {"to[0].email", "subject"}
    assert json.loads(post.dead[0].data)["id"] == "bad"
    assert post.dead[1].data == b"\xff{not json"
    assert not relay.messages


@pytest.mark.fault("E14")
@pytest.mark.parametrize(
    ("named", "field"),
    [
        ({"attachments": [{"blobId": MISSING}]}, "attachments"),
        ({"attachments": [{"blobId": MISSING}], "split": True}, "attachments"),
        ({"rawBlobId": MISSING}, "rawBlobId"),
    ],
)
async def test_a_missing_blob_is_a_problem_of_the_field_that_names_it(
    bus: Bus, post: Post, relay: ScriptedRelay, named: dict[str, Any], field: str
) -> None:
    async with sending(bus, relay):
        await post.request("r", **named)
        assert await post.states(1) == [("r", "failed")]
    status = post.events[0].body
    assert isinstance(status.problems, list)
    assert [(one.field, one.message) for one in status.problems] == [(field, f"no such blob: {MISSING}")]
    assert status.attempt == 0


async def test_blobs_are_attached_and_kept_while_the_request_waits(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    blob = await bus.blobs().put(b"PDF" * 1000, now=SystemClock().now())
    relay.script.rcpt = {"a@x.example": ["451 later", "250 OK"]}
    async with sending(bus, relay, retry_first_s=1):
        await post.request("r", attachments=[{"blobId": blob, "name": "x.pdf", "type": "application/pdf"}])
        await post.states(1)
        await bus.blobs().delete(blob)
        assert await post.states(2) == [("r", "deferred"), ("r", "sent")]
        await post.empty()
    (part,) = [one for one in message_from_bytes(relay.messages[0].content).walk() if one.get_filename()]
    assert part.get_payload(decode=True) == b"PDF" * 1000


@pytest.mark.fault("E11")
async def test_raw_bytes_with_a_bare_line_end_are_refused(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    bad = await bus.blobs().put(b"Subject: x\r\n\r\nhi\n.\r\nMAIL FROM:<evil@x>\r\n", now=SystemClock().now())
    good = await bus.blobs().put(b"Subject: x\r\n\r\n.\r\n..\r\n", now=SystemClock().now())
    async with sending(bus, relay):
        await post.request("bad", rawBlobId=bad, text=None)
        await post.request("good", rawBlobId=good, text=None)
        states = dict(await post.states(2))
    assert states == {"bad": "failed", "good": "sent"}
    assert [mail.content for mail in relay.messages] == [b"Subject: x\r\n\r\n.\r\n..\r\n"]


async def test_send_at_waits_as_a_schedule(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    async with sending(bus, relay):
        at = soon(2)
        await post.request("r", sendAt=at)
        async with asyncio.timeout(10):
            while await bus.pending(bus.subjects.stream_out, ">"):  # noqa: ASYNC110 nothing rings
                await asyncio.sleep(0.02)
        assert not relay.messages
        assert await post.states(1) == [("r", "sent")]
        await post.empty()
    assert post.events[0].body.attempt == 1
    # What sorts by Date, and who doubts an old one, has it where it comes.
    date = parsedate_to_datetime(message_from_bytes(relay.messages[0].content)["Date"])
    assert date == datetime.fromisoformat(at).replace(microsecond=0)


async def test_redirect_gets_everything_and_each_recipient_its_status(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    async with sending(bus, relay, redirect="stage@x.example"):
        await post.request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
        await post.states(1)
    assert [mail.rcpt_to for mail in relay.messages] == [["stage@x.example"]]
    assert set(delivered(post.events[0])) == {"a@x.example", "b@x.example"}


async def test_a_refused_password_puts_off_and_is_raised_once(bus: Bus, post: Post, make_relay: RelayMaker) -> None:
    relay = await make_relay(password="right")
    await post.request("r")
    login = {"login": True, "username": "u", "password": "wrong-Pa55"}
    async with sending(bus, relay, smtp=login, retry_first_s=60) as sender:
        failed = await found_lost(sender)
        assert isinstance(failed, AuthRefused)
        assert await post.states(1) == [("r", "deferred")]
    assert relay.logins == 1
    assert "wrong-Pa55" not in str(failed)


@pytest.mark.fault("G03")
async def test_a_certificate_that_does_not_hold_puts_off_and_is_raised_with_the_reason(
    bus: Bus, post: Post, make_relay: RelayMaker, authority: trustme.CA
) -> None:
    relay = await make_relay(tls=server_context(authority, "other.example"))
    await post.request("r")
    tls = {"security": Security.TLS, "tls": client_context(authority)}
    async with sending(bus, relay, smtp=tls, retry_first_s=60) as sender:
        failed = await found_lost(sender)
        assert isinstance(failed, Permanent)
        assert "match" in failed.what
        assert await post.states(1) == [("r", "deferred")]
    assert not relay.messages


async def test_a_requester_cannot_pass_for_a_schedule(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    async with sending(bus, relay):
        await post.request("r", {"Mail-Request-Key": "0" * 32, "Mail-Attempt": "1"})
        assert await post.states(1) == [("r", "sent")]


async def test_a_relay_that_is_down_puts_off_and_says_why(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    await relay.stop()
    await post.request("r")
    async with sending(bus, relay, retry_first_s=60) as sender:
        assert isinstance(await found_lost(sender), RelayUnreachable)
        assert await post.states(1) == [("r", "deferred")]


@pytest.mark.fault("E15")
async def test_while_the_relay_is_away_requests_leave_the_queue_and_expire_without_an_attempt(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.relays.PATIENCE_S", 0.0)
    await relay.stop()
    async with sending(bus, relay) as sender:
        with pytest.raises(RelayUnreachable):
            await sender.watch_relay(lambda: None)
        for n in range(20):
            await post.request(f"r{n}", expiresAt=soon(3))
        await post.until(lambda: sum(event.state == "failed" for event in post.events) == 20)
        await post.empty()
    by_id = {event.body.id: [one.state for one in post.events if one.body.id == event.body.id] for event in post.events}
    assert by_id == {f"r{n}": ["deferred", "failed"] for n in range(20)}


async def test_what_is_remembered_of_a_lost_relay_holds_no_mail(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    await relay.stop()
    await post.request("r")
    async with sending(bus, relay, retry_first_s=60) as sender:
        failed = await found_lost(sender)
        await post.states(1)
        assert (failed.__traceback__, failed.__cause__, failed.__context__) == (None, None, None)


async def test_a_relay_that_comes_back_soon_costs_nobody_a_status(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.deliver.AGAIN_S", 0.2)
    async with sending(bus, relay) as sender:
        sender._deliverer.relays.lost(RelayUnreachable("gone", where="a"))
        await post.request("r")
        await asyncio.sleep(0.5)
        assert post.events == []
        watching = asyncio.create_task(sender.watch_relay(lambda: None))
        assert await post.states(1) == [("r", "sent")]
        watching.cancel()


async def test_a_sender_that_is_stopped_finishes_what_is_in_hand(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    relay.script.hold = asyncio.Event()
    async with sending(bus, relay):
        await post.request("r")
        await relay.received(1)
        asyncio.get_running_loop().call_later(0.3, relay.script.hold.set)
    assert await post.states(1) == [("r", "sent")]
    await post.empty()


async def test_more_than_a_mail_may_hold_is_refused_before_it_is_read(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    """One blob that is named many times is as many times in the mail."""
    blob = await bus.blobs().put(b"x" * 1024 * 1024, now=datetime.now(UTC))
    async with sending(bus, relay):
        await post.request("large", attachments=[{"blobId": blob, "name": f"{n}"} for n in range(51)])
        await post.states(1)
        await post.empty()
    (event,) = post.events
    assert event.state == "failed"
    assert isinstance(event.body.problems, list)
    assert event.body.problems[0].field == "attachments"
    assert not relay.messages


@pytest.mark.fault("E13")
async def test_two_processes_with_one_request_deliver_it_once(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    """The same id twice at the same instant, one in each sender's hand: compare-and-set decides before the dot."""
    async with sending(bus, relay), sending(bus, relay):
        for n in range(20):
            await asyncio.gather(*(post.request(f"r{n}") for _ in range(4)))
        await post.until(lambda: len({event.body.id for event in post.events}) == 20)
        await post.empty(60)
    assert len(relay.messages) == 20
    assert len({event.id for event in post.events}) == 20


async def test_an_urgent_request_waits_for_what_is_in_hand_and_for_no_more(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    for n in range(200):
        await post.request(f"mailing{n}")
    relay.script.hold = asyncio.Event()
    async with sending(bus, relay):
        await relay.received(1)
        urgent = {"id": "urgent", "to": [{"email": "now@x.example"}], "text": "t"}
        await bus.publish(bus.subjects.out_urgent("a"), json.dumps(urgent).encode())
        relay.script.hold.set()
        await post.states(201)
        await post.empty()
    assert {event.state for event in post.events} == {"sent"}
    place = [mail.rcpt_to for mail in relay.messages].index(["now@x.example"])
    assert place < 150
