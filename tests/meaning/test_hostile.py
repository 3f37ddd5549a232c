"""Notices made to be slow to read: each of these took from seconds to years. The limit of a test's time tells."""

import pytest
from msgspec import UNSET

from service.contract import Kind, Reason
from service.meaning.places import Places
from tests.meaning.mails import dsn, meaning_of, notice, reports_of

SPACES = " " * 900


@pytest.mark.fault("C04")
@pytest.mark.parametrize(
    "text",
    [
        f"x\ndelivered{SPACES}! a@b.example",
        f"x\nfailed recipient{SPACES}x{SPACES}a@b.example",
        f"x\nRCPT TO{SPACES}) a@b.example",
        f"x\nRCPT TO:{SPACES}<{SPACES}( {SPACES}) a@b.example",
        "<a@b.example>: 550 " + "bad" * 1300,
        "<a@b.example>: 550 " + "fail" * 1000,
        "\n".join(["unknown x@y.example " * 40] * 80),
    ],
)
def test_a_notice_of_hostile_lines_is_a_bounce(text: str) -> None:
    assert meaning_of(notice(text)).kind is Kind.BOUNCE


@pytest.mark.fault("C04")
def test_a_text_without_a_word_before_the_returned_mail_is_read() -> None:
    text = "a" * 60_000 + "\noriginal message follows\n\n"
    assert meaning_of(notice(text, header="X-Failed-Recipients: a@b.example\n")).kind is Kind.BOUNCE


@pytest.mark.fault("C04")
def test_styles_that_never_end_are_read() -> None:
    html = notice("<style" * 10_000, header="Content-Type: text/html\n")
    assert meaning_of(html).kind is Kind.BOUNCE


def test_the_words_after_a_style_are_read_and_those_in_it_are_not() -> None:
    html = "<style>a@b.example</style ><p>&lt;c@d.example&gt;: 550 5.1.1 no such user</p><script>e@f.example"
    (report,) = meaning_of(notice(html, header="Content-Type: text/html\n")).reports or ()
    assert report.recipient == "c@d.example"


def groups(replies: list[str], whom: str = "a@b.example") -> str:
    return "\n\n".join(
        f"Final-Recipient: rfc822; {whom}\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; {reply}"
        for reply in replies
    )


@pytest.mark.fault("C04")
def test_of_a_recipient_who_is_named_again_and_again_one_reply_is_asked() -> None:
    # All of them would be more than is asked.
    found = meaning_of(dsn(groups([f"550 mailbox is full {'no ' * 300} {n}" for n in range(200)])))
    assert [report.reason for report in found.reports or ()] == [Reason.MAILBOXFULL]
    assert found.truncated is UNSET


@pytest.mark.fault("C04")
def test_what_is_said_of_all_is_asked_once() -> None:
    reply = f"mailbox is full {'no ' * 300}"
    fields = "\n\n".join(groups([f"550 <a{n}@b.example>: {reply}"], f"a{n}@b.example") for n in range(200))
    assert {report.reason for report in reports_of(dsn(fields))} == {Reason.MAILBOXFULL}


@pytest.mark.fault("C04")
def test_of_many_words_the_codes_alone_count_in_the_end() -> None:
    fields = "\n\n".join(groups([f"550 {n} mailbox is full {'no ' * 300}"], f"a{n}@b.example") for n in range(60))
    reports = reports_of(dsn(fields))
    assert (reports[0].reason, reports[-1].reason) == (Reason.MAILBOXFULL, Reason.USERUNKNOWN)


@pytest.mark.fault("C04")
def test_the_lines_of_a_notice_are_gone_through_once() -> None:
    places = Places(["x " * 200 + " sende a@b.example " + "zzz a@b.example " * 10] * 5, set())
    found = [len(places.until(end)) for end in (3, 5, 2, 5)]
    assert (found, places.read) == ([33, 55, 55, 55], 5)


@pytest.mark.fault("C04")
def test_a_notice_that_may_end_at_many_lines_is_a_bounce() -> None:
    line = "x " * 200 + " sende a@b.example " + "zzz a@b.example " * 50
    cuts = "".join(f"original message {n}\nX-A: b\nX-B: c\n" for n in range(4))
    assert meaning_of(notice(f"{line}\n" * 5 + cuts)).kind is Kind.BOUNCE
