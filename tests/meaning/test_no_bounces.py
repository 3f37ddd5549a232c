"""Mail that speaks of what was not delivered, and is no bounce; and bounces that are like it."""

import pytest

from service.contract import Kind
from tests.meaning.mails import kind_of, meaning_of, notice


def mail(subject: str, text: str, *, sender: str = "Ann <ann@b.example>", header: str = "") -> str:
    return f"From: {sender}\nTo: me@example.org\nSubject: {subject}\n{header}\n{text}\n"


LIST = "List-Unsubscribe: <https://shop.example/leave>\n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (mail("Delivery failed: your parcel", "It could not be delivered. Write to help@shop.example"), Kind.MESSAGE),
        (mail("Your delivery is delayed", "It has been delayed, says carrier@shop.example"), Kind.MESSAGE),
        (mail("Why mail bounces", "user unknown: a@b.example was rejected", header=LIST), Kind.NEWSLETTER),
        (mail("Re: Undelivered Mail Returned to Sender", "I got <c@d.example>: 550 5.1.1 user unknown"), Kind.MESSAGE),
        (mail("AW: failure notice", "It said: 550 5.1.1 <c@d.example> user unknown"), Kind.MESSAGE),
        (
            mail(
                "Quarantine report",
                "For the following recipient: a@b.example\nrejected: 3",
                sender="postmaster@x.example",
            ),
            Kind.MESSAGE,
        ),
        (
            mail(
                "Re: bill",
                "I could not be reached; bob@b.example is there.",
                header="Return-Path: <>\nX-Vacation: yes\n",
            ),
            Kind.AUTOREPLY,
        ),
        (
            mail("Re: bill", "I am away, and could not be reached; ask bob@b.example.", header="Return-Path: <>\n"),
            Kind.MESSAGE,
        ),
    ],
)
def test_words_alone_make_no_bounce(text: str, kind: Kind) -> None:
    assert kind_of(text) is kind


@pytest.mark.parametrize(
    "text",
    [
        notice("Your message was not delivered to c@d.example", subject="your mail"),
        mail("Fwd: failure notice", "<c@d.example>:\n550 5.1.1 user unknown"),
        mail(
            "Message could not be delivered",
            "It was not delivered to c@d.example\n\nOriginal message:\n\nSubject: x\nFrom: me@example.org",
        ),
    ],
)
def test_what_a_server_said_or_sent_back_makes_a_bounce(text: str) -> None:
    assert kind_of(text) is Kind.BOUNCE


def test_exims_report_of_a_failed_dmarc_policy_is_a_complaint() -> None:
    subject = "DMARC Forensic Report for b.example from IP 192.0.2.1"
    said = meaning_of(
        mail(subject, "A message claiming to be from you failed", header="Auto-Submitted: auto-replied\n")
    )
    assert (said.kind, said.feedback_type) == (Kind.COMPLAINT, "auth-failure")
