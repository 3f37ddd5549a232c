"""What a mail means has limits, and whatever one leaves out is said in `truncated`."""

import pytest
from msgspec import UNSET

from service.contract import Reason
from tests.meaning.mails import dsn, meaning_of, notice
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
        "List-Unsubscribe: <https://x.example/" + "x" * 2000 + ">\n\nx\n",
        "List-Unsubscribe: https://x.example/" + "x" * 2000 + "\n\nx\n",
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


def test_a_url_may_be_longer_than_a_line() -> None:
    url = "https://x.example/" + "x" * 1900
    for field in (f"<{url}>", f"<{url[:900]}\n {url[900:]}>", url):
        header = f"List-Unsubscribe: {field}\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n"
        found = meaning_of(f"{header}\nx\n")
        assert found.truncated is UNSET
        assert found.list_ is not UNSET
        assert (found.list_.unsubscribe, found.list_.one_click) == ([url], True)


def test_what_is_as_long_as_it_may_be_is_whole() -> None:
    for mail in (invitation(event("SUMMARY:" + "x" * 1000)), dsn(REPORTS.rpartition("\n\n")[0])):
        assert meaning_of(mail).truncated is UNSET


ONE = "Final-Recipient: rfc822; a@b.c\nAction: failed"
LONG = [
    notice("\n".join(f"<a{n}@b.c>:\n550 no such user\n\n\n\n\n\n\n" for n in range(150))),
    notice("\n\n".join(f"<a{n}@b.c>: 550 no such user {'z' * 900}" for n in range(90))),
    notice("".join(f"<a{n}@b.c>: 550 no such user {'z' * 400}\n" for n in range(90))),
    dsn(ONE + "\n\nX-Note: " + "x" * 256 * 1024),
    dsn("\n\n".join([ONE] * 201)),
    dsn("\n\n".join(ONE.replace("a@", f"a{n}@") + f"\nDiagnostic-Code: smtp; 5 {n} {'x ' * 300}" for n in range(50))),
    invitation(event("X-NOTE:" + "x" * 256 * 1024)),
]


@pytest.mark.fault("C03")
@pytest.mark.parametrize("mail", LONG)
def test_what_is_too_long_to_be_read_is_said(mail: str) -> None:
    assert meaning_of(mail).truncated == ["meaning"]


@pytest.mark.fault("C03")
def test_of_replies_that_differ_no_more_is_asked_than_the_loop_can_wait_for() -> None:
    each = ONE + "\nDiagnostic-Code: smtp; 550 {n} {x}"
    fields = [each.replace("a@", f"a{n}@").format(n=n, x="x " * 300) for n in range(8)]
    assert meaning_of(dsn("\n\n".join(fields))).truncated == ["meaning"]
    assert meaning_of(dsn("\n\n".join(fields[:4]))).truncated is UNSET


@pytest.mark.fault("C03")
def test_replies_that_differ_by_their_ids_alone_are_asked_once() -> None:
    each = ONE + "\nDiagnostic-Code: smtp; 550 mailbox is full ({id}), see ticket {n} of {id}.5-x"
    fields = [each.replace("a@", f"a{n}@").format(n=10_000 + n, id=f"4xk2v{n:x}t1c2dz9") for n in range(200)]
    found = meaning_of(dsn("\n\n".join(fields)))
    # An event has no room for all of them; what is there was asked for.
    assert {report.reason for report in found.reports or ()} == {Reason.MAILBOXFULL}
    assert meaning_of(dsn("\n\n".join(fields[:40]))).truncated is UNSET


def test_a_returned_mail_is_as_long_as_it_likes() -> None:
    text = (
        f"<a@b.c>:\n550 no such user\n\n--- Below this line is a copy of the message.\n\nSubject: x\n\n{'x ' * 40_000}"
    )
    for mail in (notice(text), dsn(ONE, returned="X-Note: " + "x" * 256 * 1024)):
        assert meaning_of(mail).truncated is UNSET
