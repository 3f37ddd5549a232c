"""What kind of mail it is, by the standards' fields and parts."""

import pytest
from msgspec import UNSET

from service.contract import Kind, MailingList
from tests.meaning.mails import kind_of, meaning_of

FROM = "From: a@example.org\nTo: b@example.org\n"


def test_a_plain_mail_says_nothing_but_its_kind() -> None:
    meaning = meaning_of(f"{FROM}Subject: hello\n\nHello!\n")
    assert meaning.kind is Kind.MESSAGE
    assert meaning.reports is meaning.list_ is meaning.calendar is meaning.authentication is UNSET


@pytest.mark.parametrize(
    "header",
    [
        "Auto-Submitted: auto-replied\nSubject: Re: hello\n",
        "Auto-Submitted: auto-replied (vacation)\nSubject: Re: hello\n",
        "X-Autoreply: yes\nSubject: hello\n",
        "Precedence: auto_reply\nSubject: hello\n",
        "Subject: Out of Office: hello\nIn-Reply-To: <hello@example.org>\n",
        "Subject: Automatic reply: hello\n",
        "Subject: =?utf-8?q?R=C3=A9ponse_automatique?=\n",
        "Subject: Abwesenheitsnotiz\n",
        "Return-Path: <>\nSubject: [Auto-Reply] hello\n",
        "Subject: Out of Office AutoReply: hello\n",
        "Subject: [EXTERNAL] Out of the office: hello\nAuto-Submitted: auto-generated\n",
        "Subject: On vacation\nIn-Reply-To: <hello@example.org>\n",
        "Subject: Fuera de la oficina\nX-Auto-Response-Suppress: All\n",
        "Subject: Absent du bureau\nReturn-Path: <>\n",
    ],
)
def test_automatic_answers(header: str) -> None:
    assert kind_of(f"{FROM}{header}\nI am away until Monday.\n") is Kind.AUTOREPLY


@pytest.mark.parametrize(
    "subject",
    [
        "OOO on Friday",
        "OOO: Friday afternoon",
        "Out of office: 24 Dec - 2 Jan",
        "Absence : jeudi",
        "Out of office policy",
        "On vacation next week",
        "Absence request",
        "Vacation message templates",
    ],
)
def test_a_person_who_will_be_away_is_no_answer(subject: str) -> None:
    assert kind_of(f"{FROM}Subject: {subject}\n\nI am away until Monday.\n") is Kind.MESSAGE


@pytest.mark.parametrize("more", ["", "Auto-Submitted: no\n"])
def test_a_colon_makes_no_answer_of_an_announcement(more: str) -> None:
    assert kind_of(f"{FROM}{more}Subject: Out of office: next week\n\nI am away.\n") is Kind.MESSAGE


@pytest.mark.parametrize(
    "subject",
    [
        "Automaattinen vastaus: hello",
        "Автоматический ответ: hello",
        "Otomatik Yanıt: hello",
        "自動回覆: hello",
        "رد تلقائي: hello",
        "Urlaub",
        "In ferie",
    ],
)
def test_answers_of_exchange_in_any_language(subject: str) -> None:
    header = (
        "Return-Path: <>\nAuto-Submitted: auto-generated\nX-Auto-Response-Suppress: All\n"
        "In-Reply-To: <hello@example.org>\n"
    )
    assert kind_of(f"{FROM}{header}Subject: {subject}\n\nMaanantaihin asti.\n") is Kind.AUTOREPLY
    # A program's report from the null path answers nothing.
    assert kind_of(f"{FROM}Return-Path: <>\nAuto-Submitted: auto-generated\nSubject: {subject}\n\nx\n") is Kind.MESSAGE


def test_what_a_program_sends_of_itself_is_no_answer() -> None:
    assert kind_of(f"{FROM}Auto-Submitted: auto-generated\nSubject: backup done\n\nDone.\n") is Kind.MESSAGE


def test_a_discussion_list() -> None:
    header = "List-Id: Talk <talk.example.org>\nList-Post: <mailto:talk@example.org>\n"
    meaning = meaning_of(f"{FROM}{header}List-Unsubscribe: <mailto:talk-leave@example.org>\n\nHi\n")
    assert meaning.kind is Kind.LIST
    assert meaning.list_ == MailingList(
        id="talk.example.org", post="mailto:talk@example.org", unsubscribe=["mailto:talk-leave@example.org"]
    )


def test_a_newsletter_that_one_click_ends() -> None:
    # RFC 8058 3.1.
    header = (
        "List-Unsubscribe: <mailto:u@example.org>,\n <https://example.org/u?id=1>\n"
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click\n"
    )
    meaning = meaning_of(f"{FROM}{header}\nNews\n")
    assert meaning.kind is Kind.NEWSLETTER
    assert meaning.list_ == MailingList(
        unsubscribe=["mailto:u@example.org", "https://example.org/u?id=1"], one_click=True
    )


def test_a_discussion_that_one_click_ends_is_one() -> None:
    header = (
        "List-Id: <talk.example.org>\nList-Post: <mailto:talk@example.org>\n"
        "List-Unsubscribe: <https://example.org/u?id=1>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n"
    )
    meaning = meaning_of(f"{FROM}{header}\nHi\n")
    assert meaning.kind is Kind.LIST
    assert meaning.list_ is not UNSET
    assert meaning.list_.one_click is True


def test_one_click_needs_https() -> None:
    header = "List-Unsubscribe: <http://example.org/u>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n"
    meaning = meaning_of(f"{FROM}{header}\nNews\n")
    assert meaning.list_ is not UNSET
    assert meaning.list_.one_click is UNSET


def test_a_list_where_nobody_may_answer_is_a_newsletter() -> None:
    # RFC 2369 3.4.
    header = "List-Id: <news.example.org>\nList-Post: NO\nList-Unsubscribe: <mailto:u@example.org>\n"
    assert kind_of(f"{FROM}{header}\nNews\n") is Kind.NEWSLETTER


@pytest.mark.parametrize(
    ("post", "kind"),
    [
        ("<https://news.example.org/post>", Kind.NEWSLETTER),
        ("<https://talk.example.org/post>, <mailto:talk@example.org>", Kind.LIST),
    ],
)
def test_to_write_to_a_discussion_one_sends_a_mail(post: str, kind: Kind) -> None:
    # RFC 2369 3.4.
    header = (
        f"List-Id: <a.example.org>\nList-Post: {post}\n"
        "List-Unsubscribe: <https://example.org/u?id=1>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n"
    )
    assert kind_of(f"{FROM}{header}\nHi\n") is kind


def report(kind: str, part: str, fields: str, subject: str = "hello") -> str:
    return f"""\
{FROM}Subject: {subject}
Content-Type: multipart/report; report-type={kind}; boundary=b

--b
Content-Type: text/plain

Words.

--b
Content-Type: {part}

{fields}

--b
Content-Type: message/rfc822

Message-ID: <sent@example.org>
From: sender@example.org

text

--b--
"""


def test_a_complaint() -> None:
    fields = "Feedback-Type: abuse\nUser-Agent: Loop/1.0\nVersion: 1\nOriginal-Rcpt-To: <cross@example.net>"
    meaning = meaning_of(report("feedback-report", "message/feedback-report", fields))
    assert (meaning.kind, meaning.feedback_type) == (Kind.COMPLAINT, "abuse")
    assert meaning.original is not UNSET
    assert (meaning.original.message_id, meaning.original.recipients) == ("sent@example.org", ["cross@example.net"])


def test_a_read_receipt() -> None:
    # RFC 8098 3.2.
    fields = (
        "Final-Recipient: rfc822; reader@example.net\nOriginal-Message-ID: <other@example.org>\n"
        "Disposition: manual-action/MDN-sent-manually; displayed"
    )
    meaning = meaning_of(report("disposition-notification", "message/disposition-notification", fields))
    assert meaning.kind is Kind.RECEIPT
    assert meaning.original is not UNSET
    assert (meaning.original.message_id, meaning.original.recipients) == ("other@example.org", ["reader@example.net"])
    assert meaning.disposition == "displayed"


@pytest.mark.parametrize(
    ("field", "disposition"),
    [
        ("automatic-action/MDN-sent-automatically; deleted", "deleted"),  # RFC 8098 3.2.6.2: perhaps unread
        ("manual-action/MDN-sent-manually; Displayed/error", "displayed"),
        ("automatic-action/MDN-sent-automatically;\n processed", "processed"),
        ("displayed", "displayed"),
        ("manual-action/MDN-sent-manually", UNSET),
        ("", UNSET),
    ],
)
def test_a_receipt_says_what_was_done_with_the_mail(field: str, disposition: str) -> None:
    fields = f"Final-Recipient: rfc822; reader@example.net\nDisposition: {field}"
    meaning = meaning_of(report("disposition-notification", "message/disposition-notification", fields))
    assert (meaning.kind, meaning.disposition) == (Kind.RECEIPT, disposition)


def test_what_is_said_of_a_mail_over_the_limit_comes_from_its_header() -> None:
    from service.meaning import read_meaning
    from service.mime import MimeLimits, parse_header_only

    header = f"{FROM}List-Id: <talk.example.org>\nList-Post: <mailto:talk@example.org>\n\n".encode()
    parsed = parse_header_only(
        header,
        10**8,
        received_at=None,
        limits=MimeLimits(),
        meaning=lambda email, values, contents: read_meaning(email, values, contents, ""),
    )
    assert parsed.email.mailbus.kind is Kind.LIST
    assert parsed.problem is not None


def test_a_program_that_leaves_a_list_for_its_user_complains_softly() -> None:
    header = "Subject: unsubscribe\nAuto-Submitted: auto-replied\nX-Apple-Unsubscribe: true\n"
    meaning = meaning_of(f"{FROM}{header}\nApple Mail sent this email to unsubscribe.\n")
    assert (meaning.kind, meaning.feedback_type) == (Kind.COMPLAINT, "opt-out")
    assert meaning.original is not UNSET
    assert meaning.original.recipients == ["a@example.org"]
