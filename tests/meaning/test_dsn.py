"""RFC 3464 reports: who did not get a mail, and why."""

import pytest
from msgspec import UNSET

from service.contract import Action, Kind, Reason, encode
from tests.meaning.mails import dsn, kind_of, meaning_of, reports_of

FAILED = """\
Final-Recipient: rfc822; nobody@example.net
Original-Recipient: rfc822;alias@example.net
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.example.net
Diagnostic-Code: smtp; 550 5.1.1 <nobody@example.net>: Recipient address
    rejected: User unknown in local recipient table"""


def test_a_failed_recipient_is_reported_with_code_words_and_reason() -> None:
    (report,) = reports_of(dsn(FAILED))
    assert report.recipient == "nobody@example.net"
    assert report.original_recipient == "alias@example.net"
    assert (report.action, report.status, report.reply_code) == (Action.FAILED, "5.1.1", 550)
    assert (report.reason, report.hard, report.remote_mta) == (Reason.USERUNKNOWN, True, "mx.example.net")
    assert report.diagnostic == (
        "550 5.1.1 <nobody@example.net>: Recipient address rejected: User unknown in local recipient table"
    )


def test_the_mail_that_came_back_is_named() -> None:
    fields = f"Original-Envelope-Id: abc123\n\n{FAILED}"
    meaning = meaning_of(dsn(fields.replace("Original-Envelope", "X-Other\nOriginal-Envelope")))
    assert meaning.original is not UNSET
    assert (meaning.original.message_id, meaning.original.envelope_id) == ("sent@example.org", "abc123")


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("failed", Kind.BOUNCE),
        ("delayed", Kind.DELAY),
        ("delivered", Kind.DELIVERED),
        ("relayed", Kind.DELIVERED),
        ("expanded", Kind.DELIVERED),
        ("failed (bad destination)", Kind.BOUNCE),
    ],
)
def test_the_action_is_the_kind(action: str, kind: Kind) -> None:
    assert kind_of(dsn(FAILED.replace("Action: failed", f"Action: {action}"))) is kind


def test_one_failure_among_successes_is_a_bounce() -> None:
    other = "Final-Recipient: rfc822; fine@example.net\nAction: relayed\nStatus: 2.0.0"
    meaning = meaning_of(dsn(f"{other}\n\n{FAILED}"))
    assert meaning.kind is Kind.BOUNCE
    assert meaning.reports is not UNSET
    assert [(one.recipient, one.action) for one in meaning.reports] == [
        ("fine@example.net", Action.RELAYED),
        ("nobody@example.net", Action.FAILED),
    ]
    assert meaning.reports[0].reason is UNSET


def test_a_full_mailbox_is_soft() -> None:
    full = FAILED.replace("5.1.1", "5.2.2").replace("User unknown in local recipient table", "quota exceeded")
    (report,) = reports_of(dsn(full))
    assert (report.reason, report.hard) == (Reason.MAILBOXFULL, False)


def test_an_address_in_utf_8_is_given_as_it_is() -> None:
    # RFC 6533 3: utf-8; and the address.
    fields = "Final-Recipient: utf-8; käse@bücher.example\nAction: failed\nStatus: 5.1.1"
    (report,) = reports_of(dsn(fields).replace("message/delivery-status", "message/global-delivery-status"))
    assert report.recipient == "käse@bücher.example"


def test_fields_that_stand_in_a_text_are_found() -> None:
    text = dsn(FAILED).replace("Content-Type: message/delivery-status", "Content-Type: text/plain")
    (report,) = reports_of(text)
    assert (report.recipient, report.reason) == ("nobody@example.net", Reason.USERUNKNOWN)


def test_the_words_of_the_notice_help_where_the_fields_have_none() -> None:
    fields = "Final-Recipient: rfc822; nobody@example.net\nAction: failed\nStatus: 5.0.0"
    notice = "<nobody@example.net>: host mx.example.net said: 552 mailbox is full (in reply to RCPT TO command)"
    (report,) = reports_of(dsn(fields, notice=notice))
    assert (report.reason, report.reply_code) == (Reason.MAILBOXFULL, 552)


def test_more_recipients_than_an_envelope_has_are_cut() -> None:
    many = "\n\n".join(FAILED.replace("nobody", f"nobody{number}") for number in range(250))
    meaning = meaning_of(dsn(many))
    assert meaning.reports is not UNSET
    assert 20 < len(meaning.reports) <= 200
    assert meaning.truncated == ["meaning"]
    assert len(encode(meaning)) <= 20 * 1024


def test_a_report_without_recipients_is_a_bounce_all_the_same() -> None:
    meaning = meaning_of(dsn("X-Note: nothing here"))
    assert (meaning.kind, meaning.reports) == (Kind.BOUNCE, UNSET)


@pytest.mark.parametrize(
    ("field", "recipient"),
    [
        ("rfc822; o'brien@b.example", "o'brien@b.example"),
        ("rfc822; 'ann@b.example'", "ann@b.example"),
        ("rfc822; a|b`c=d*e@b.example", "a|b`c=d*e@b.example"),
        ("rfc822; ann@[192.0.2.1]", "ann@[192.0.2.1]"),
        ("rfc822; ann@b.example (Ann)", "ann@b.example"),
        (r'rfc822;"very.(),:;<>[]\".VERY"@b.example', r'"very.(),:;<>[]\".VERY"@b.example'),
        ('"a;b c"@b.example', '"a;b c"@b.example'),
        ("rfc822;CN=Ann Example/O=Org@ORG", "CN=Ann Example/O=Org@ORG"),
        (r"utf-8; \x{434}\x{438}@b.example", "ди@b.example"),
        (r"utf-8; \x{110000}@b.example", r"\x{110000}@b.example"),
    ],
)
def test_a_recipient_is_all_of_the_address(field: str, recipient: str) -> None:
    (report,) = reports_of(dsn(f"Final-Recipient: {field}\nAction: failed\nStatus: 5.1.1"))
    assert report.recipient == recipient


def test_a_recipient_has_one_report_the_worst() -> None:
    fields = "Final-Recipient: rfc822; {}\nAction: {}\nStatus: {}"
    said = [
        ("a@b.example", "delayed", "4.4.1"),
        ("A@b.example", "failed", "5.1.1"),
        ("a@b.example", "relayed", "2.0.0"),
    ]
    (report,) = reports_of(dsn("\n\n".join(fields.format(*one) for one in said)))
    assert (report.action, report.status) == (Action.FAILED, "5.1.1")


def test_a_status_of_success_without_an_action_is_no_failure() -> None:
    mail = dsn("Final-Recipient: rfc822; a@b.example\nStatus: 2.1.5")
    assert kind_of(mail) is Kind.DELIVERED
    assert [report.action for report in reports_of(mail)] == [Action.DELIVERED]


@pytest.mark.parametrize(
    ("final", "sent", "recipient"),
    [
        ("bob+2Btag@b.example", "bob+tag@b.example", "bob+tag@b.example"),
        ("bob", "Bob <bob@b.example>", "bob@b.example"),
        ("bob+2Btag", "bob+tag@b.example", "bob+tag@b.example"),
        # As it stands: it only looks like xtext.
        ("ann+2024@b.example", "ann+2024@b.example", "ann+2024@b.example"),
        ("bob+2Btag@b.example", "list@b.example", "bob+2Btag@b.example"),
        # Of two nobody knows which.
        ("bob", "bob@b.example, bob@c.example", "bob"),
        ("bob", "ann@b.example", "bob"),
    ],
)
def test_a_recipient_is_named_as_the_mail_that_came_back_names_him(final: str, sent: str, recipient: str) -> None:
    (report,) = reports_of(
        dsn(f"Final-Recipient: rfc822; {final}\nAction: failed\nStatus: 5.1.1", returned=f"To: {sent}")
    )
    assert report.recipient == recipient
