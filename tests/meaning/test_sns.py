"""What Amazon SES tells by mail: its published form of JSON, as SNS sends it."""

import json

import pytest
from msgspec import UNSET

from service.contract import Action, Extension, Kind, Reason
from tests.meaning.mails import meaning_of

MAIL = {"messageId": "0101", "headers": [{"name": "Message-ID", "value": "<sent@example.org>"}]}
BOUNCE = {
    "notificationType": "Bounce",
    "bounce": {
        "bounceType": "Permanent",
        "bouncedRecipients": [
            {"emailAddress": "a@example.net", "action": "failed", "status": "5.1.1",
             "diagnosticCode": "smtp; 550 5.1.1 user unknown"},
            {"emailAddress": "b@example.net", "diagnosticCode": "smtp; 552 5.2.2 mailbox is full"},
        ],
        "reportingMTA": "dsn; a27.example.net",
    },
    "mail": MAIL,
}  # fmt: skip


def told(text: str) -> Extension:
    header = "From: SES <no-reply@sns.example.com>\nTo: o@example.org\nSubject: Notification\nx-amz-sns-message-id: 1\n"
    return meaning_of(f"{header}\n{text}\n\n--\nTo stop receiving these, visit https://example.com\n")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_bounce_has_its_recipients_and_the_mail_that_came_back(wrapped: bool) -> None:
    text = json.dumps({"Type": "Notification", "Message": json.dumps(BOUNCE)} if wrapped else BOUNCE)
    meaning = told(text)
    assert meaning.kind is Kind.BOUNCE
    assert [(one.recipient, one.action, one.reason, one.hard) for one in meaning.reports or ()] == [
        ("a@example.net", Action.FAILED, Reason.USERUNKNOWN, True),
        ("b@example.net", Action.FAILED, Reason.MAILBOXFULL, False),
    ]
    assert meaning.original is not UNSET
    assert meaning.original.message_id == "sent@example.org"


def test_a_line_that_sendmail_broke_is_put_together() -> None:
    assert told(json.dumps(BOUNCE).replace("emailAddress", "email!\n Address")).kind is Kind.BOUNCE


def test_a_complaint_names_who_complained() -> None:
    complaint = {"complainedRecipients": [{"emailAddress": "a@example.net"}], "complaintFeedbackType": "fraud"}
    meaning = told(json.dumps({"eventType": "Complaint", "complaint": complaint, "mail": MAIL}))
    assert (meaning.kind, meaning.feedback_type) == (Kind.COMPLAINT, "fraud")
    assert meaning.original is not UNSET
    assert meaning.original.recipients == ["a@example.net"]


def test_a_delivery() -> None:
    delivery = {"recipients": ["a@example.net"], "smtpResponse": "250 ok"}
    meaning = told(json.dumps({"notificationType": "Delivery", "delivery": delivery, "mail": MAIL}))
    assert meaning.kind is Kind.DELIVERED


@pytest.mark.fault("C01")
@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, '{"Message": 1}', '{"notificationType": "Bounce", "bounce": []}', ""]
)
def test_what_is_none_of_these_is_a_mail_like_any_other(text: str) -> None:
    assert told(text).kind is Kind.MESSAGE


@pytest.mark.parametrize("kind", ["Bounce", "Complaint"])
def test_what_was_not_sent_for_the_accounts_own_list_is_no_complaint_but_suppressed(kind: str) -> None:
    name = kind.lower()
    who = "bouncedRecipients" if kind == "Bounce" else "complainedRecipients"
    of_list = {f"{name}SubType": "OnAccountSuppressionList", who: [{"emailAddress": "a@example.net"}]}
    meaning = told(json.dumps({"notificationType": kind, name: of_list, "mail": MAIL}))
    assert (meaning.kind, meaning.feedback_type) == (Kind.BOUNCE, UNSET)
    (report,) = meaning.reports or ()
    assert (report.recipient, report.reason, report.hard) == ("a@example.net", Reason.SUPPRESSED, False)
    assert meaning.original is not UNSET
    assert meaning.original.message_id == "sent@example.org"
