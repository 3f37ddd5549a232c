"""Date fields: RFC 5322 3.3 and 4.3, and other ways to write a time."""

import pytest

from service.mime.dates import parse_date
from tests.mime.mails import email_of


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Tue, 14 Nov 2023 22:13:20 +0100", "2023-11-14T22:13:20+01:00"),
        ("14 Nov 2023 22:13 +0000", "2023-11-14T22:13:00+00:00"),
        ("Tue,14 Nov 2023 22:13:20 -0330", "2023-11-14T22:13:20-03:30"),
        ("Thu,\r\n 13\r\n  Feb\r\n 1969\r\n 23:32:54 -0330 (Newfoundland Time)", "1969-02-13T23:32:54-03:30"),
        # RFC 5322 4.3: obsolete zones and years.
        ("Fri, 21 Nov 97 09:55:06 EST", "1997-11-21T09:55:06-05:00"),
        ("21 Nov 97 09:55:06 PDT", "1997-11-21T09:55:06-07:00"),
        ("21 Nov 03 09:55:06 GMT", "2003-11-21T09:55:06+00:00"),
        ("21 Nov 103 09:55:06 UT", "2003-11-21T09:55:06+00:00"),
        ("21 Nov 1997 09:55:06 A", "1997-11-21T09:55:06+00:00"),  # military zones mean nothing
        ("21 Nov 1997 09:55:06 -0000", "1997-11-21T09:55:06+00:00"),
        ("21 Nov 1997 09:55:06", "1997-11-21T09:55:06+00:00"),
        ("21 Nov 1997 09:55:06 XYZ", "1997-11-21T09:55:06+00:00"),
        ("21 Nov 1997 09:55:06 +9999", "1997-11-21T09:55:06+00:00"),
        ("21 Nov 1997 23:59:60 +0000", "1997-11-21T23:59:59+00:00"),  # a leap second
        # What else turns up.
        ("Tue Nov 14 22:13:20 2023", "2023-11-14T22:13:20+00:00"),
        ("Tue Nov 14 22:13:20 CET 2023", "2023-11-14T22:13:20+01:00"),
        ("2023-11-14T22:13:20Z", "2023-11-14T22:13:20+00:00"),
        ("2023-11-14 22:13:20 +0200", "2023-11-14T22:13:20+02:00"),
        ("Tuesday, 14 November 2023 10:13:20 pm +0000", "2023-11-14T22:13:20+00:00"),
        ("Tue, 14-Nov-2023 22.13.20 GMT+02:00", "2023-11-14T22:13:20+02:00"),
    ],
)
def test_dates(raw: str, expected: str) -> None:
    found = parse_date(raw)
    assert found is not None
    assert found.isoformat() == expected


@pytest.mark.fault("C08")
@pytest.mark.parametrize(
    "raw",
    [
        "",
        "yesterday",
        "Tue, 31 Feb 2023 22:13:20 +0000",
        "Tue, 14 Xyz 2023 22:13:20 +0000",
        "Tue, 14 Nov 2023 25:13:20 +0000",
        "Tue, 14 Nov 2023",
        "0 Nov 2023 22:13:20 +0000",
        "Fri, 31 Dec 9999 23:59:59 -0500",  # nobody could turn it into UTC
        "1 Jan 0001 00:00:00 +0500",
        "1 Jan 10000 00:00:00 +0000",
        "1 Jan 0000 00:00:00 +0000",
        "²² Nov 2023 22:13:20 +0000",
        "1 " * 1_000_000,
    ],
)
def test_what_is_no_date_is_null(raw: str) -> None:
    assert parse_date(raw) is None


@pytest.mark.fault("C08")
def test_a_mail_without_a_date_or_with_nonsense_has_none() -> None:
    assert email_of("Subject: x\n\n").sent_at is None
    assert email_of("Date: soon\n\n").sent_at is None
