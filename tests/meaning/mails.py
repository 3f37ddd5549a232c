"""Small ways to write a report in a test, and to read what it means."""

from msgspec import UNSET

from service.contract import Extension, Kind, Report
from service.meaning import read_meaning
from service.mime import MimeLimits, parse

INLINE = 256 * 1024


def meaning_of(text: str | bytes, *, server: str = "") -> Extension:
    """What a mail means, as the test shows it; line ends become CRLF."""
    raw = text if isinstance(text, bytes) else text.encode().replace(b"\n", b"\r\n")
    parsed = parse(
        raw,
        received_at=None,
        limits=MimeLimits(),
        inline_limit=INLINE,
        meaning=lambda email, values, contents: read_meaning(email, values, contents, server),
    )
    return parsed.email.mailbus


def kind_of(text: str | bytes) -> Kind:
    return meaning_of(text).kind


def reports_of(text: str) -> list[Report]:
    reports = meaning_of(text).reports
    return [] if reports is UNSET else reports


def dsn(fields: str, *, notice: str = "It did not arrive.", returned: str = "Message-ID: <sent@example.org>") -> str:
    """RFC 3464's three parts."""
    return f"""\
From: Mail Delivery System <MAILER-DAEMON@mx.example.org>
To: sender@example.org
Subject: Undelivered Mail Returned to Sender
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

{notice}

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.org

{fields}

--b
Content-Type: text/rfc822-headers

{returned}
From: sender@example.org
Subject: hello

--b--
"""


def notice(text: str, *, header: str = "", subject: str = "failure notice") -> str:
    """A bounce that is nothing but a text."""
    return f"From: MAILER-DAEMON@mx.example.org\nTo: sender@example.org\nSubject: {subject}\n{header}\n{text}\n"
