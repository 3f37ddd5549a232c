"""Which mails may take long to understand, by what stands in them as they come."""

import pytest

from service.meaning import takes_long
from tests.meaning.mails import dsn, notice

FROM = b"From: Ann <ann@b.example>\r\n"
LETTER = FROM + b"To: me@example.org\r\nSubject: hello\r\n\r\n"


@pytest.mark.parametrize(
    "mail",
    [
        dsn("Final-Recipient: rfc822; a@b.c").encode(),
        notice("<a@b.c>: 550 no such user").encode(),
        b"Return-Path: <>\r\n" + LETTER,
        b"Return-Path:<>\n" + LETTER.replace(b"\r", b""),
        b"Auto-Submitted: auto-generated\r\nsubject: delivery\r\n report\r\n" + FROM + b"\r\nx",
        b"Subject: =?utf-8?b?5LiN6YGU?=\nAuto-Submitted: auto-generated\n" + FROM + b"\r\nx",
        b"X-Failed-Recipients: a@b.c\r\n" + LETTER,
        b"Subject: nobody sent it\r\n\r\nx",
        b"From: Mail Delivery System\r\n <Mailer-Daemon@b.example>\r\n\r\nx",
        b"From: admin@b.example\n\nx",
        b"Content-Type: multipart/mixed; boundary=b\r\n" + LETTER + b"--b\r\nContent-Type: message/delivery-status",
        b"Content-Type: Multipart/Alternative; boundary=b\n" + LETTER + b"--b\nContent-Type:\n text/calendar",
        b"Content-Type: Text/Calendar; method=REQUEST\r\n" + LETTER,
        b"Content-Type:\r\n application/ics\r\n" + LETTER,
        b"Content-Type: message/delivery-status\r\n" + LETTER,
        b"X-Note: a\r\n" * 3000 + LETTER,
    ],
)
def test_reports_and_invitations_may(mail: bytes) -> None:
    assert takes_long(mail)


@pytest.mark.parametrize(
    "mail",
    [
        LETTER + b"multipart/report from MAILER-DAEMON@b.example, text/calendar, message/delivery-status",
        b"Content-Type: multipart/mixed; boundary=b\r\n" + LETTER + b"https://b.example/calendar?delivery-status",
        b"List-Id: <news.b.example>\r\nReturn-Path: <news@b.example>\r\n" + LETTER,
        b"X-Auto-Response-Suppress: All\r\n" + LETTER,
        b"Auto-Submitted: no\r\n" + FROM + b"Subject: undeliverable\r\n\r\nx",
        b"Auto-Submitted: auto-generated\r\n" + LETTER,
        LETTER.replace(b"\r", b"") + b"\r\nAuto-Submitted: auto-generated\nSubject: undeliverable\n\n",
    ],
)
def test_letters_newsletters_and_what_shops_write_do_not(mail: bytes) -> None:
    assert not takes_long(mail)
