"""Mail that came back finds its request, once, and only by a Message-ID that mailbus itself gave."""

import asyncio
import json
from datetime import UTC, datetime
from email import message_from_bytes
from unittest.mock import Mock

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.contract import Reason, request_key
from service.errors import Halted, Transient
from service.observe import metrics
from service.outbound import Returned
from service.outbound.proof import known_of, tag_of
from service.outbound.suppressions import Suppressions
from service.parsing import Page, Raw, Read, make
from tests.meaning.mails import dsn
from tests.meaning.test_dsn import FAILED
from tests.meaning.test_kinds import report
from tests.outbound.conftest import Post, sending
from tests.servers.smtp import ScriptedRelay

PAGE = Page("/mail/a/INBOX", "INBOX", "c0ffee", 7, 65536, 1048576, Raw.PROBLEM, datetime(2026, 11, 26, tzinfo=UTC))
SECRET = b"s" * 32


def announced(mail: str) -> bytes:
    """The body of the event of a mail."""
    return make(PAGE, Read(1, len(mail), {}, None, mail.encode().replace(b"\n", b"\r\n"), True)).payload


def bounce(message_id: str) -> bytes:
    fields = FAILED.replace("nobody@example.net", "a@x.example").replace(
        "Original-Recipient: rfc822;alias@example.net\n", ""
    )
    return announced(dsn(fields, returned=f"Message-ID: <{message_id}>"))


async def sent(post: Post, relay: ScriptedRelay) -> str:
    """The Message-ID of a request that was sent."""
    async with sending(post.bus, relay):
        await post.request("order-1")
        await post.states(1)
        await post.empty()
    message_id = post.events[0].body.message_id
    assert isinstance(message_id, str)
    return message_id


@pytest.mark.fault("E16")
async def test_a_bounce_is_told_once_with_its_request_and_why(post: Post, relay: ScriptedRelay, bus: Bus) -> None:
    payload = bounce(await sent(post, relay))
    returned = Returned(bus, SystemClock(), suppresses=lambda _: True)
    for _ in range(3):
        await returned.heard(payload)
    assert await post.states(2) == [("order-1", "sent"), ("order-1", "bounced")]
    event = post.events[1]
    assert event.body.verified is True
    assert event.body.delivery_status["a@x.example"].delivered == "no"
    assert event.body.report.reason is Reason.USERUNKNOWN
    # A later one of the same mail: anything that was told again would stand before it.
    await returned.heard(announced(report_of(event.body.message_id)))
    assert [state for _, state in await post.states(3)] == ["sent", "bounced", "complained"]


def report_of(message_id: object) -> str:
    fields = "Feedback-Type: abuse\nOriginal-Rcpt-To: a@x.example"
    mail = report("feedback-report", "message/feedback-report", fields)
    return mail.replace("Message-ID: <sent@example.org>", f"Message-ID: <{message_id}>")


async def test_a_complaint_names_who_complained(post: Post, relay: ScriptedRelay, bus: Bus) -> None:
    await Returned(bus, SystemClock(), suppresses=lambda _: True).heard(announced(report_of(await sent(post, relay))))
    assert await post.states(2) == [("order-1", "sent"), ("order-1", "complained")]
    assert list(post.events[1].body.delivery_status) == ["a@x.example"]


async def test_who_bounced_for_good_or_complained_gets_nothing_more(post: Post, relay: ScriptedRelay, bus: Bus) -> None:
    returned = Returned(bus, SystemClock(), suppresses=lambda account: account == "a")
    await returned.heard(bounce(await sent(post, relay)))
    listed = [one async for one in Suppressions(bus, "a", SystemClock()).all()]
    assert [(one.email, one.reason) for one in listed] == [("a@x.example", "bounced: userunknown")]
    async with sending(bus, relay):
        await post.request("order-2")
        await post.until(lambda: any(event.body.id == "order-2" for event in post.events))
    assert post.events[-1].state == "failed"


@pytest.mark.fault("E16")
@pytest.mark.parametrize("others", [[], ["refused@x.example"], ["other@x.example"]])
async def test_who_bounces_before_the_outcome_is_stored_gets_nothing_more_where_the_mail_is_his_alone(
    post: Post, relay: ScriptedRelay, bus: Bus, others: list[str]
) -> None:
    relay.script.rcpt = {"refused@x.example": ["550 5.1.1 no such user"]}
    relay.script.hold = asyncio.Event()
    async with sending(bus, relay):
        await post.request("r", to=[{"email": who} for who in ("a@x.example", *others)])
        (mail,) = await relay.received(1)
        message_id = message_from_bytes(mail.content)["Message-ID"].strip("<>")
        await Returned(bus, SystemClock(), suppresses=lambda _: True).heard(bounce(message_id))
        relay.script.hold.set()
        await post.empty()
    # Who else has the mail could have written it.
    expected = [] if others == ["other@x.example"] else ["a@x.example"]
    assert [one.email async for one in Suppressions(bus, "a", SystemClock()).all()] == expected


@pytest.mark.fault("E16")
async def test_of_a_mail_to_several_nobody_is_suppressed_on_the_word_of_one(
    post: Post, relay: ScriptedRelay, bus: Bus
) -> None:
    async with sending(bus, relay):
        await post.request("order-1", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
        await post.states(1)
    message_id = str(post.events[0].body.message_id)
    await Returned(bus, SystemClock(), suppresses=lambda _: True).heard(bounce(message_id))
    await Returned(bus, SystemClock(), suppresses=lambda _: True).heard(announced(report_of(message_id)))
    await post.states(3)
    assert [one async for one in Suppressions(bus, "a", SystemClock()).all()] == []


NOTICE = """\
{path}From: postmaster@x.example
To: me@example.com
Subject: Undelivered mail

<a@x.example>: 550 5.1.1 no such user here

Message-ID: <{message_id}>
From: me@example.com
"""


async def test_a_bounce_that_a_person_may_have_written_suppresses_nobody(
    post: Post, relay: ScriptedRelay, bus: Bus
) -> None:
    returned = Returned(bus, SystemClock(), suppresses=lambda _: True)
    message_id = await sent(post, relay)
    await returned.heard(announced(NOTICE.format(path="", message_id=message_id)))
    assert (await post.states(2))[1] == ("order-1", "bounced")
    assert [one async for one in Suppressions(bus, "a", SystemClock()).all()] == []


async def test_a_bounce_without_a_part_for_machines_suppresses_by_the_null_path(
    post: Post, relay: ScriptedRelay, bus: Bus
) -> None:
    returned = Returned(bus, SystemClock(), suppresses=lambda _: True)
    await returned.heard(announced(NOTICE.format(path="Return-Path: <>\n", message_id=await sent(post, relay))))
    assert [one.email async for one in Suppressions(bus, "a", SystemClock()).all()] == ["a@x.example"]


async def test_an_account_may_keep_its_list_by_hand(post: Post, relay: ScriptedRelay, bus: Bus) -> None:
    await Returned(bus, SystemClock(), suppresses=lambda _: False).heard(bounce(await sent(post, relay)))
    await post.states(2)
    assert [one async for one in Suppressions(bus, "a", SystemClock()).all()] == []


@pytest.mark.fault("E16", "C01")
@pytest.mark.parametrize("status", ["5", "", "5.", "no such thing", "5.1.1"])
async def test_a_bounce_whose_status_is_none_is_heard_like_any_other(
    post: Post, relay: ScriptedRelay, bus: Bus, status: str
) -> None:
    """Whoever got the mail can write one."""
    recipient = {"emailAddress": "a@x.example", "status": status, "diagnosticCode": "smtp; 550 5.1.1 user unknown"}
    mail = {"headers": [{"name": "Message-ID", "value": f"<{await sent(post, relay)}>"}]}
    said = {"notificationType": "Bounce", "bounce": {"bouncedRecipients": [recipient]}, "mail": mail}
    written = f"From: a@x.example\nSubject: Notification\nx-amz-sns-message-id: 1\n\n{json.dumps(said)}\n"
    bugs = metrics.BUGS._value.get()
    await Returned(bus, SystemClock(), suppresses=lambda _: True).heard(announced(written))
    assert await post.states(2) == [("order-1", "sent"), ("order-1", "bounced")]
    assert [one.email async for one in Suppressions(bus, "a", SystemClock()).all()] == ["a@x.example"]
    assert metrics.BUGS._value.get() == bugs


async def test_a_report_that_mailbus_fails_at_stops_no_mailbox(
    post: Post, relay: ScriptedRelay, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload, bugs = bounce(await sent(post, relay)), metrics.BUGS._value.get()
    returned = Returned(bus, SystemClock(), suppresses=lambda _: True)
    for failing in (KeyError("a bug"), Halted("too large", where="here")):
        monkeypatch.setattr("service.outbound.returned.meant", Mock(side_effect=failing))
        await returned.heard(payload)
    assert metrics.BUGS._value.get() == bugs + 2
    metrics.BUGS._value.set(bugs)
    monkeypatch.setattr("service.outbound.returned.meant", Mock(side_effect=Transient("away", where="NATS")))
    with pytest.raises(Transient):
        await returned.heard(payload)


@pytest.mark.fault("E16")
async def test_a_strangers_bounce_changes_nothing(post: Post, relay: ScriptedRelay, bus: Bus) -> None:
    real = await sent(post, relay)
    key = request_key("a", "order-1")
    returned = Returned(bus, SystemClock(), suppresses=lambda _: True)
    for forged in (f"{key}{'0' * 32}@example.com", f"{key}@example.com", "some@example.com", f"{'é' * 64}@x"):
        await returned.heard(bounce(forged))
    await returned.heard(bounce(real))
    assert await post.states(2) == [("order-1", "sent"), ("order-1", "bounced")]


async def test_a_bounce_of_a_request_that_is_forgotten_says_nothing(post: Post, relay: ScriptedRelay, bus: Bus) -> None:
    real = await sent(post, relay)
    await bus.key_value(bus.subjects.sends).delete(request_key("a", "order-1"))
    returned = Returned(bus, SystemClock(), suppresses=lambda _: True)
    await returned.heard(bounce(real))
    await post.request("order-2")
    async with sending(post.bus, relay):
        assert await post.states(2) == [("order-1", "sent"), ("order-2", "sent")]


@pytest.mark.parametrize("change", ["", "0", "x" * 64])
def test_only_a_whole_id_of_ours_has_a_key(change: str) -> None:
    key = request_key("a", "order-1")
    known = known_of(f"{key}{tag_of(key, SECRET)}@example.com", SECRET)
    assert known is not None
    assert (known.key, known.mark) == (key, "")
    assert known_of(f"{key}{tag_of(key, SECRET)}{change or 'a'}@example.com", SECRET) is None
    assert known_of(f"{change}@example.com", SECRET) is None
