"""Which mails may take long to understand, by what stands in them as they come."""

import pytest

from service.meaning import takes_long
from tests.meaning.mails import dsn, notice

LETTER = b"From: Ann <ann@b.example>\r\nTo: me@example.org\r\nSubject: hello\r\n\r\n"


@pytest.mark.parametrize(
    "mail",
    [
        dsn("Final-Recipient: rfc822; a@b.c").encode(),
        notice("<a@b.c>: 550 no such user").encode(),
        b"Return-Path: <>\r\n" + LETTER,
        b"Auto-Submitted: auto-replied\n" + LETTER,
        b"X-Failed-Recipients: a@b.c\r\n" + LETTER,
        b"Subject: nobody sent it\r\n\r\nx",
        b"From: Mail Delivery System\r\n <Mailer-Daemon@b.example>\r\n\r\nx",
        b"From: admin@b.example\n\nx",
        b"Content-Type: multipart/mixed; boundary=b\r\n" + LETTER + b"--b\r\nContent-Type: message/delivery-status",
        b"Content-Type: Text/Calendar; method=REQUEST\r\n" + LETTER,
    ],
)
def test_reports_and_invitations_may(mail: bytes) -> None:
    assert takes_long(mail)


@pytest.mark.parametrize(
    "mail",
    [
        LETTER + b"multipart/report from MAILER-DAEMON@b.example",
        b"List-Id: <news.b.example>\r\nReturn-Path: <news@b.example>\r\n" + LETTER,
        b"X-Note: a\r\n" * 3000 + LETTER,
    ],
)
def test_letters_and_newsletters_do_not(mail: bytes) -> None:
    assert takes_long(mail) is mail.startswith(b"X-Note")
