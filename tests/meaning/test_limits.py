"""What a mail means has limits, and whatever one leaves out is said in `truncated`."""

import pytest
from msgspec import UNSET

from tests.meaning.mails import dsn, meaning_of
from tests.meaning.test_calendar import mail as invitation

REPORTS = "\n\n".join(f"Final-Recipient: rfc822; a{n}@b.c\nAction: relayed" for n in range(201))
GUESTS = "\n".join(f"ATTENDEE:mailto:a{n}@b.c" for n in range(201))
FEEDBACK = f"""\
Subject: complaint
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
{"".join(f"Original-Rcpt-To: a{n}@b.c{chr(10)}" for n in range(201))}
--b--
"""


def event(more: str) -> str:
    return f"BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nUID:1\n{more}\nEND:VEVENT\nEND:VCALENDAR\n"


@pytest.mark.fault("C03")
@pytest.mark.parametrize(
    "mail",
    [
        dsn(REPORTS),
        FEEDBACK,
        invitation(event(GUESTS)),
        invitation(event("SUMMARY:" + "x" * 1001)),
        "List-Unsubscribe: " + ", ".join(f"<https://x.example/{n}>" for n in range(5)) + "\n\nx\n",
    ],
)
def test_what_is_left_out_is_said(mail: str) -> None:
    found = meaning_of(mail)
    assert found.truncated == ["meaning"]
    counts = [
        len(some or ())
        for some in (
            found.reports,
            found.original and found.original.recipients,
            found.calendar and found.calendar.attendees,
        )
    ]
    assert sum(counts) in (0, 200)


def test_what_is_as_long_as_it_may_be_is_whole() -> None:
    for mail in (invitation(event("SUMMARY:" + "x" * 1000)), dsn(REPORTS.rpartition("\n\n")[0])):
        assert meaning_of(mail).truncated is UNSET
