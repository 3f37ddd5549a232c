"""Replies to announced messages and messages passed on: found in the log by their id, threaded, quoted as text."""

import json
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.contract import Reset, ResetReason, email_id, encode, mailbox_token
from service.outbound import Originals
from service.parsing import Page, Raw, Read, make
from tests.outbound.conftest import Post, sending
from tests.servers.smtp import ScriptedRelay

MAIL = """From: Ada <ada@x.example>
To: Me <me@example.com>, Bob <bob@x.example>
Cc: Cy <cy@x.example>, not an address
Subject: Offer
Date: Wed, 14 Oct 2026 09:21:07 +0200
Message-ID: <second@x.example>
References: <first@x.example>

Good morning,
> said before
what does it cost?
"""


def page(mailbox: str, uidvalidity: int = 7) -> Page:
    moment = datetime(2026, 11, 26, tzinfo=UTC)
    return Page(f"/mail/a/{mailbox}", mailbox, "c0ffee", uidvalidity, 65536, 1048576, Raw.PROBLEM, moment)


async def announce(bus: Bus, uid: int, mail: str = MAIL, *, mailbox: str = "INBOX", uidvalidity: int = 7) -> str:
    """Its id. The event, and its blobs, as ingest would put them there."""
    wire = mail.encode().replace(b"\n", b"\r\n")
    made = make(page(mailbox, uidvalidity), Read(uid, len(wire), {}, None, wire, True))
    if made.blobs:
        await bus.blobs().put_all(made.blobs, now=SystemClock().now())
    id = email_id(mailbox, uidvalidity, uid)
    await bus.publish(bus.subjects.event("a", mailbox, "received"), made.payload, {"ce-subject": id})
    return id


async def begin(bus: Bus, mailbox: str = "INBOX", uidvalidity: int = 7) -> None:
    body = encode(Reset(mailbox, ResetReason.START, uidvalidity, None))
    await bus.publish(bus.subjects.event("a", mailbox, "reset"), body)


async def answer(post: Post, relay: ScriptedRelay, **fields: Any) -> tuple[EmailMessage, list[str]]:
    """The mail that went out, and to whom."""
    async with sending(post.bus, relay):
        await post.bus.publish(post.bus.subjects.out("a"), json.dumps({"id": "r", **fields}).encode())
        assert await post.states(1) == [("r", "sent")]
        await post.empty()
    (mail,) = relay.messages
    message = message_from_bytes(mail.content, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message, mail.rcpt_to


def text_of(message: EmailMessage, kind: str = "plain") -> str:
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


async def test_a_reply_goes_to_the_sender_within_the_conversation(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    await begin(bus)
    id = await announce(bus, 3)
    message, to = await answer(post, relay, reply={"emailId": id, "quote": True}, text="Ten.\n")
    assert to == ["ada@x.example"]
    assert message["To"] == "Ada <ada@x.example>"
    assert message["Subject"] == "Re: Offer"
    assert message["In-Reply-To"] == "<second@x.example>"
    assert message["References"] == "<first@x.example> <second@x.example>"
    assert text_of(message) == (
        "Ten.\n\nOn 2026-10-14 09:21 +0200, Ada <ada@x.example> wrote:\n"
        "> Good morning,\n>> said before\n> what does it cost?\n"
    )


async def test_a_reply_to_all_leaves_the_account_out_and_what_is_no_address(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    # RFC 5891: no label may be what "☕-" or a hundred letters are.
    mail = MAIL.replace("not an address", f"☕@-☕-.example, long@{'ü' * 100}.example, not an address")
    id = await announce(bus, 3, mail)
    message, to = await answer(post, relay, reply={"emailId": id, "all": True}, html="<body><p>Ten.</p></body>")
    assert to == ["ada@x.example", "bob@x.example", "cy@x.example"]
    assert message["Cc"] == "Bob <bob@x.example>, Cy <cy@x.example>"
    assert "Good morning" not in text_of(message, "html")


@pytest.mark.parametrize(
    ("mail", "all"),
    [
        # Strangers, whom nobody would have written to, or the account itself.
        (MAIL.replace("From: Ada <ada@x.example>\n", ""), False),
        (MAIL.replace("From: Ada <ada@x.example>\n", ""), True),
        (MAIL.replace("ada@x.example", "nobody"), True),
        # Its answer would be announced, and answered in turn.
        (MAIL.replace("Ada <ada@x.example>", "ME@example.com").replace(", Bob <bob@x.example>", ""), False),
        (MAIL.replace("From:", "Reply-To: me@example.com\nFrom:"), False),
    ],
)
async def test_a_message_that_nobody_else_wrote_is_answered_only_where_the_request_says_to_whom(
    bus: Bus, post: Post, relay: ScriptedRelay, mail: str, *, all: bool
) -> None:
    id = await announce(bus, 3, mail)
    body = {"id": "q", "reply": {"emailId": id, "all": all}, "text": "x"}
    async with sending(bus, relay):
        await bus.publish(bus.subjects.out("a"), json.dumps(body).encode())
        await bus.publish(
            bus.subjects.out("a"), json.dumps(body | {"id": "r", "to": [{"email": "z@x.example"}]}).encode()
        )
        assert sorted(await post.states(2)) == [("q", "failed"), ("r", "sent")]
    assert [mail.rcpt_to for mail in relay.messages] == [["z@x.example"]]
    problems = next(event.body.problems for event in post.events if event.body.id == "q")
    assert isinstance(problems, list)
    assert [one.field for one in problems] == ["reply.emailId"]


AWAY = MAIL.replace("Offer", "Out of office").replace("To: Me", "Auto-Submitted: auto-replied\nTo: Me", 1)
RECEIPT = MAIL.partition("\n\n")[0] + (
    "\nMIME-Version: 1.0\nContent-Type: multipart/report; report-type=disposition-notification; boundary=b\n\n"
    "--b\n\nread\n--b\nContent-Type: message/disposition-notification\n\n"
    "Final-Recipient: rfc822;ada@x.example\nDisposition: manual-action/MDN-sent-manually; displayed\n--b--\n"
)


@pytest.mark.fault("E16")
@pytest.mark.parametrize("mail", [AWAY, RECEIPT, f"Return-Path: <>\n{MAIL}"])
async def test_what_no_person_wrote_is_answered_only_where_the_request_says_to_whom(
    bus: Bus, post: Post, relay: ScriptedRelay, mail: str
) -> None:
    """RFC 3834 2: two programs that answer each other would never end."""
    id = await announce(bus, 3, mail)
    body = {"id": "q", "reply": {"emailId": id, "all": True}, "text": "x"}
    named = body | {"id": "r", "to": [{"email": "ada@x.example"}]}
    async with sending(bus, relay):
        for one in (body, named):
            await bus.publish(bus.subjects.out("a"), json.dumps(one).encode())
        assert sorted(await post.states(2)) == [("q", "failed"), ("r", "sent")]
    problems = next(event.body.problems for event in post.events if event.body.id == "q")
    assert isinstance(problems, list)
    assert [one.field for one in problems] == ["reply.emailId"]


async def test_a_program_says_of_its_answer_that_it_is_one(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    """RFC 3834 3.1.7. A Return-Path that is not on top is nobody's."""
    id = await announce(bus, 3, f"Return-Path: <ada@x.example>\nReturn-Path: <>\n{MAIL}")
    headers = {"Auto-Submitted": "auto-replied"}
    message, to = await answer(post, relay, reply={"emailId": id}, text="x", headers=headers)
    assert (message["Auto-Submitted"], to) == ("auto-replied", ["ada@x.example"])


async def test_an_answer_to_the_accounts_own_mail_goes_where_that_went(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    id = await announce(bus, 3, MAIL.replace("Ada <ada@x.example>", "Me <Me@example.com>"))
    _, to = await answer(post, relay, reply={"emailId": id}, text="And?")
    assert to == ["bob@x.example"]


async def test_a_strangers_html_is_quoted_as_text(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    evil = MAIL.replace("References: <first@x.example>", "Content-Type: text/html").partition("\n\n")[0]
    id = await announce(bus, 1, f"{evil}\n\n<p>Dear <b>friend</b></p><script>x()</script><p>a &lt;i&gt; b</p>\n")
    message, _ = await answer(
        post, relay, reply={"emailId": id, "quote": True}, html="<body><p>No.</p></body>", text="No."
    )
    assert text_of(message).splitlines()[-2:] == ["> Dear friend", "> a <i> b"]
    page = text_of(message, "html")
    assert "<b>" not in page
    assert "a &lt;i&gt; b</blockquote>" in page
    assert page.rstrip().endswith("</body>")


async def test_a_message_passed_on_takes_its_attachments_along(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    parts = (
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nSee the bill.\n--b\n"
        'Content-Type: application/pdf\nContent-Disposition: attachment; filename="bill.pdf"\n\nPDF\n--b\n'
        'Content-Type: message/rfc822\nContent-Disposition: attachment; filename="x.eml"\n\nSubject: x\n\ny\n--b--\n'
    )
    id = await announce(bus, 9, MAIL.partition("\n\n")[0] + "\n" + parts)
    message, to = await answer(post, relay, forward={"emailId": id}, to=[{"email": "z@x.example"}])
    assert to == ["z@x.example"]
    assert message["Subject"] == "Fwd: Offer"
    assert message["In-Reply-To"] is None
    assert "From: Ada <ada@x.example>\nDate: 2026-10-14 09:21 +0200\nSubject: Offer\n" in text_of(message)
    assert "See the bill." in text_of(message)
    files = {part.get_filename(): part for part in message.iter_attachments()}
    assert files["bill.pdf"].get_content_type() == "application/pdf"
    assert files["bill.pdf"].get_payload(decode=True) == b"PDF"
    assert files["x.eml"].get_content_type() == "application/octet-stream"


async def test_what_is_gone_refuses_the_request_with_its_field(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    await begin(bus)
    await announce(bus, 3)
    gone = email_id("INBOX", 7, 4)
    async with sending(bus, relay):
        for n, field in enumerate(("reply", "forward")):
            to = [{"email": "z@x.example"}]
            body = {"id": f"r{n}", field: {"emailId": gone}, "text": "x", "to": to}
            await bus.publish(bus.subjects.out("a"), json.dumps(body).encode())
        await post.states(2)
        await post.until(lambda: len(post.dead) == 2)
    assert not relay.messages
    said = {event.body.id: event.body.problems for event in post.events}
    for n, field in enumerate(("reply.emailId", "forward.emailId")):
        problems = said[f"r{n}"]
        assert isinstance(problems, list)
        assert problems[0].field == field


async def test_a_reply_that_waits_needs_the_event_no_more(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    relay.script.rcpt = {"ada@x.example": ["451 later", "250 OK"]}
    id = await announce(bus, 3)
    async with sending(bus, relay, retry_first_s=1):
        body = {"id": "r", "reply": {"emailId": id, "quote": True}, "text": "x"}
        await bus.publish(bus.subjects.out("a"), json.dumps(body).encode())
        await post.states(1)
        await bus.nc.jetstream().purge_stream(bus.subjects.stream_in)
        assert await post.states(2) == [("r", "deferred"), ("r", "sent")]
    assert b"> Good morning" in relay.messages[0].content


@pytest.mark.parametrize("mailbox", ["INBOX", "Archive.2026 ☕", "x" * 300])
async def test_a_message_is_found_among_many_mailboxes_and_epochs(bus: Bus, mailbox: str) -> None:
    """UIDs with gaps, in two epochs, between events of another mailbox; what was before the first reset, too."""
    ids: list[str] = []
    for uidvalidity in (7, 5, 9):
        if uidvalidity != 7:
            await begin(bus, mailbox, uidvalidity)
        for uid in (1, 2, 30, 31, 400):
            await announce(bus, uid, mailbox="Other", uidvalidity=uidvalidity)
            ids.append(await announce(bus, uid, mailbox=mailbox, uidvalidity=uidvalidity))
    originals = Originals(bus, "a", "me@example.com")
    for id in ids:
        found = await originals.find(id)
        assert found is not None
        assert found.id == id
    for uidvalidity, uid in ((5, 3), (9, 500), (5, 0), (8, 1)):
        assert await originals.find(email_id(mailbox, uidvalidity, uid)) is None
    assert await originals.find(email_id("Nowhere", 7, 1)) is None
    assert mailbox_token(mailbox)
