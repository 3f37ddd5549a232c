"""Bounces that no machine was meant to read."""

import pytest
from msgspec import UNSET

from service.contract import Action, Kind, Reason
from tests.meaning.mails import kind_of, meaning_of, notice, reports_of
from tests.mime.mails import multipart

RETURNED = "Return-Path: <sender@example.org>\nMessage-ID: <sent@example.org>\nTo: other@example.com\nSubject: hello\n"

FORMS = {
    "qmail": """\
Hi. This is the qmail-send program at mx.example.org.
I'm afraid I wasn't able to deliver your message to the following addresses.

<nobody@example.net>:
192.0.2.1 does not like recipient.
Remote host said: 550 5.1.1 no such user here
Giving up on 192.0.2.1.

--- Below this line is a copy of the message.

""",
    "exim": """\
This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  nobody@example.net
    SMTP error from remote mail server after RCPT TO:<nobody@example.net>:
    host mx.example.net [192.0.2.1]: 550 5.1.1 no such user here

------ This is a copy of the message, including all the headers. ------

""",
    "postfix": """\
This is the Postfix program at host mx.example.org.

For further assistance, please contact <postmaster@example.org>

<nobody@example.net>: host mx.example.net[192.0.2.1] said: 550 5.1.1 no such
    user here (in reply to RCPT TO command)

""",
    "sendmail": """\
   ----- The following addresses had permanent fatal errors -----
<nobody@example.net>

   ----- Transcript of session follows -----
... while talking to mx.example.net.:
>>> RCPT To:<nobody@example.net>
<<< 550 5.1.1 no such user here
550 5.1.1 <nobody@example.net>... User unknown

   ----- Original message follows -----

""",
    "exchange": """\
Your message

  To:      nobody@example.net
  Subject: hello

did not reach the following recipient(s):

nobody@example.net on Thu, 9 May 2024 23:34:45 +0900
    550 5.1.1 no such user here

""",
    "bullets": """\
Delivery to the following recipients failed permanently:

   * nobody@example.net

Technical details: SMTP:RCPT host 192.0.2.1: 550 5.1.1 no such user here

""",
    "one line": "Unable to deliver message to: <nobody@example.net>\n550 5.1.1 no such user here\n\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_who_and_why_is_found_in_whatever_form(form: str) -> None:
    meaning = meaning_of(notice(FORMS[form] + RETURNED))
    assert meaning.kind is Kind.BOUNCE
    assert meaning.reports is not UNSET
    (report,) = meaning.reports
    assert report.recipient == "nobody@example.net"
    assert (report.status, report.reply_code, report.reason) == ("5.1.1", 550, Reason.USERUNKNOWN)
    assert meaning.original is not UNSET
    assert meaning.original.message_id == "sent@example.org"


def test_several_recipients_have_each_their_reason() -> None:
    text = """\
The following address(es) failed:

  one@example.net
    552 mailbox is full
  two@example.net
    550 5.1.1 no such user here
"""
    assert [(one.recipient, one.reason) for one in reports_of(notice(text))] == [
        ("one@example.net", Reason.MAILBOXFULL),
        ("two@example.net", Reason.USERUNKNOWN),
    ]


def test_a_warning_is_a_delay() -> None:
    text = """\
A message that you sent has not yet been delivered to one or more of its
recipients after more than 24 hours on the queue.

  late@example.net
    Delay reason: connection timed out

No action is required on your part. Delivery attempts will continue for some time.
"""
    meaning = meaning_of(notice(text, subject="Warning: message delayed 24 hours"))
    assert meaning.kind is Kind.DELAY
    assert meaning.reports is not UNSET
    assert [(one.recipient, one.action, one.reason) for one in meaning.reports] == [
        ("late@example.net", Action.DELAYED, Reason.EXPIRED)
    ]


def test_a_field_names_whom_the_text_does_not() -> None:
    text = "The following address(es) failed:\n\n  save to folder\n    mailbox is full: retry timeout exceeded\n"
    (report,) = reports_of(notice(text, header="X-Failed-Recipients: a@example.net\n"))
    assert (report.recipient, report.reason) == ("a@example.net", Reason.MAILBOXFULL)


def test_the_words_of_a_notice_in_html_are_read() -> None:
    text = "<html><body><p>Your message did not reach:</p><p>nobody@example.net<br>550 no such user</p></body></html>"
    (report,) = reports_of(notice(text, header="Content-Type: text/html\n", subject="Undeliverable: hello"))
    assert (report.recipient, report.reason) == ("nobody@example.net", Reason.USERUNKNOWN)


@pytest.mark.parametrize(
    ("sender", "subject", "text"),
    [
        ("a@example.org", "Delivery of your order failed to start", "We will bring it on Monday."),
        ("postmaster@example.org", "Lunch", "Shall we have lunch at noon?"),
        ("a@example.org", "Question", "My mail to b@example.org was rejected with 550 user unknown. What is that?"),
        ("a@example.org", "returned item", "Please find the returned item in the warehouse."),
    ],
)
def test_mail_of_people_is_no_bounce(sender: str, subject: str, text: str) -> None:
    assert kind_of(f"From: {sender}\nTo: b@example.org\nSubject: {subject}\n\n{text}\n") is Kind.MESSAGE


def test_a_name_without_a_domain_is_of_the_server_that_writes() -> None:
    text = (
        "Your mail to the following recipients could not be delivered because their mailbox is full:\n\n\tscreenname\n"
    )
    (report,) = reports_of(notice(text))
    assert (report.recipient, report.reason) == ("screenname@mx.example.org", Reason.MAILBOXFULL)


def test_an_alias_that_led_elsewhere_is_the_original_recipient() -> None:
    text = FORMS["sendmail"].replace(
        "<nobody@example.net>\n\n", "<nobody@example.net>\n    (expanded from: <all@example.net>)\n\n"
    )
    (report,) = reports_of(notice(text))
    assert (report.recipient, report.original_recipient) == ("nobody@example.net", "all@example.net")


def test_a_notice_that_shows_its_own_header_names_nobody_by_it() -> None:
    text = (
        "Save to the following Address Book:\n\nTo: sender@example.org\nCC:\nDate: Thursday, 29 Apr\n"
        "Subject: failure notice\n\nundeliverable to nobody@example.net\n\nBody of message generated response:\n"
        "550-REJECTED - Blacklisted URL in message\n"
    )
    (report,) = reports_of(notice(text))
    assert (report.recipient, report.reason, report.reply_code) == ("nobody@example.net", Reason.SPAMDETECTED, 550)


def test_a_mail_that_went_to_a_list_did_not_fail_for_the_list() -> None:
    def bounced(field: str) -> str:
        text = "Content-Type: text/plain\n\nYour message could not be delivered: not a valid user of the system.\n"
        returned = f"Content-Type: message/rfc822\n\nTo: talk@lists.example.org\n{field}: <talk.lists.example.org>\n"
        return multipart("b", text, returned, header="From: MAILER-DAEMON@mx.example.org\nSubject: failure notice\n")

    assert meaning_of(bounced("List-Id")).kind is Kind.BOUNCE
    assert meaning_of(bounced("List-Id")).reports is UNSET
    assert [one.recipient for one in reports_of(bounced("X-Id"))] == ["talk@lists.example.org"]


def test_a_reply_that_names_the_address_again_goes_on() -> None:
    text = (
        "<nobody@example.net>: host mx.example.net[192.0.2.1] said: 550 5.2.1\n"
        "<nobody@example.net>... User Unknown (in reply to RCPT TO command)\n"
    )
    (report,) = reports_of(notice(text))
    assert (report.status, report.reason) == ("5.2.1", Reason.USERUNKNOWN)


def test_exim_names_fifty_recipients_in_a_field() -> None:
    names = [f"a{n}@example.net" for n in range(120)]
    fields = "".join(f"X-Failed-Recipients: {', '.join(names[n : n + 50])}\n" for n in range(0, 120, 50))
    assert [one.recipient for one in reports_of(notice("It could not be delivered.", header=fields))] == names


@pytest.mark.parametrize(
    "text",
    [
        "收件人邮件地址（joe@qq.example）不存在，邮件无法送达。\n550 5.1.1 User unknown",
        "无法投递：joe@qq.example，550 5.1.1 User unknown",
        "「joe@qq.example」、550 5.1.1 User unknown",
    ],
)
def test_punctuation_of_chinese_and_japanese_is_no_part_of_an_address(text: str) -> None:
    header = "Content-Type: text/plain; charset=utf-8\n"
    assert [report.recipient for report in reports_of(notice(text, header=header))] == ["joe@qq.example"]


def test_cells_of_a_table_are_not_one_word() -> None:
    html = "<table><tr><td>Failed:</td><td>joe@qq.example</td><td>550 5.1.1 user unknown</td></tr></table>"
    header = "Content-Type: text/html\n"
    assert [report.recipient for report in reports_of(notice(html, header=header))] == ["joe@qq.example"]
