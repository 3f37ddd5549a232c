"""A report without a proof finds its request by a name of the requester's own; it is told, and changes nothing."""

from datetime import UTC, datetime

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.outbound import Returned
from service.outbound.names import SHARED, Names, by_message_id
from service.outbound.sends import SECRET_KEY
from service.outbound.suppressions import Suppressions
from tests.meaning.mails import dsn
from tests.meaning.test_dsn import FAILED
from tests.outbound.conftest import Post, sending
from tests.outbound.test_returned import announced
from tests.servers.smtp import ScriptedRelay

RAW = b"From: me@example.com\r\nTo: a@x.example\r\nMessage-ID: <my-own@example.com>\r\nSubject: s\r\n\r\nHello\r\n"
ENVELOPE = {"mailFrom": {"email": "bounces+17@example.com"}, "rcptTo": [{"email": "a@x.example"}]}
WITH_ID = {"mailFrom": {"email": "me@example.com", "parameters": {"ENVID": "order=17"}}, "rcptTo": ENVELOPE["rcptTo"]}
MAIL = "Message-ID: <other@example.com>"


def returned(bus: Bus) -> Returned:
    return Returned(bus, SystemClock(), suppresses=lambda _: True)


def bounce_of(recipient: str, returned_header: str = MAIL, more: str = "") -> str:
    fields = FAILED.replace("nobody@example.net", recipient).replace("alias@example.net", recipient)
    return dsn(fields, returned=returned_header).replace("Reporting-MTA", f"{more}Reporting-MTA")


async def suppressed(bus: Bus) -> list[str]:
    return [one.email async for one in Suppressions(bus, "a", SystemClock()).all()]


@pytest.mark.fault("E16")
@pytest.mark.parametrize("name", ["message-id", "envelope-id", "path"])
async def test_what_finds_a_request_and_proves_nothing_is_told_once_and_changes_nothing(
    post: Post, relay: ScriptedRelay, bus: Bus, name: str
) -> None:
    blob = await bus.blobs().put(RAW, now=datetime.now(UTC))
    fields, mail = {
        "message-id": ({"rawBlobId": blob, "text": None}, bounce_of("a@x.example", "Message-ID: <my-own@example.com>")),
        "envelope-id": (
            {"envelope": WITH_ID},
            bounce_of("a@x.example", more="Original-Envelope-Id: order=17\n"),
        ),
        "path": (
            {"envelope": ENVELOPE},
            bounce_of("a@x.example").replace("To: sender@example.org", "To: bounces+17@example.com"),
        ),
    }[name]
    async with sending(bus, relay):
        await post.request("order-1", **fields)
        await post.states(1)
        await post.empty()
    for _ in range(3):
        await returned(bus).heard(announced(mail))
    assert await post.states(2) == [("order-1", "sent"), ("order-1", "bounced")]
    event = post.events[1]
    assert event.body.verified is False
    assert event.body.delivery_status["a@x.example"].delivered == "unknown"
    assert event.body.report.recipient == "a@x.example"
    assert await suppressed(bus) == []
    # Nothing was told again: the next event is another's.
    async with sending(bus, relay):
        await post.request("order-2")
        assert (await post.states(3))[2] == ("order-2", "sent")


async def test_what_proves_it_later_is_told_as_well(post: Post, relay: ScriptedRelay, bus: Bus) -> None:
    async with sending(bus, relay, verp="bounces+{}@example.com"):
        blob = await bus.blobs().put(RAW, now=datetime.now(UTC))
        await post.request("order-1", rawBlobId=blob, text=None)
        await post.states(1)
        await post.empty()
    mail = bounce_of("a@x.example", "Message-ID: <my-own@example.com>")
    path = relay.messages[0].mail_from
    for report in (mail, mail.replace("sender@example.org", path), mail):
        await returned(bus).heard(announced(report))
    await post.states(3)
    assert [event.body.verified for event in post.events[1:]] == [False, True]
    assert post.events[1].id != post.events[2].id
    assert await suppressed(bus) == ["a@x.example"]


@pytest.mark.fault("E16")
async def test_nobody_is_made_up_by_a_report_without_a_proof(post: Post, relay: ScriptedRelay, bus: Bus) -> None:
    blob = await bus.blobs().put(RAW, now=datetime.now(UTC))
    both = [{"email": "a@x.example"}, {"email": "b@x.example"}]
    async with sending(bus, relay):
        await post.request("order-1", rawBlobId=blob, text=None, to=both)
        await post.states(1)
        await post.empty()
    for who in ("stranger@x.example", "B@X.example"):
        await returned(bus).heard(announced(bounce_of(who, "Message-ID: <my-own@example.com>")))
    await post.states(2)
    assert list(post.events[1].body.delivery_status) == ["b@x.example"]


async def test_a_mail_that_was_passed_on_is_its_recipients(post: Post, relay: ScriptedRelay, bus: Bus) -> None:
    blob = await bus.blobs().put(RAW, now=datetime.now(UTC))
    async with sending(bus, relay):
        await post.request("order-1", rawBlobId=blob, text=None)
        await post.states(1)
        await post.empty()
    await returned(bus).heard(announced(bounce_of("new@y.example", "Message-ID: <my-own@example.com>")))
    await post.states(2)
    event = post.events[1]
    assert list(event.body.delivery_status) == ["a@x.example"]
    assert event.body.report.recipient == "new@y.example"


async def test_a_name_is_of_each_request_that_has_it_and_of_none_where_it_is_everybodys(bus: Bus) -> None:
    names = Names(bus.key_value(bus.subjects.sends))
    mine, everybodys = by_message_id("mine@x"), by_message_id("everybodys@x")
    for key in ("1", "2", "1"):
        await names.keep([mine], key)
    for number in range(SHARED + 2):
        await names.keep([everybodys], str(number))
    assert await names.find([mine, mine]) == ["1", "2"]
    assert await names.find([everybodys, by_message_id("nobodys@x")]) == []


async def test_a_message_id_whose_secret_is_lost_still_finds_its_request(
    post: Post, relay: ScriptedRelay, bus: Bus
) -> None:
    async with sending(bus, relay):
        await post.request("order-1")
        await post.states(1)
        await post.empty()
    message_id = str(post.events[0].body.message_id)
    await bus.key_value(bus.subjects.cursors).delete(SECRET_KEY)
    for id in (f"{message_id[:32]}{'0' * 32}@example.com", message_id):
        await returned(bus).heard(announced(bounce_of("a@x.example", f"Message-ID: <{id}>")))
    await post.states(2)
    assert post.events[1].body.verified is False
    assert post.events[1].body.message_id == message_id
