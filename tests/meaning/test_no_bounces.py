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
        (mail("Mail delivery failed", "The server says: 550 5.1.1 <c@d.example> user unknown. Help!"), Kind.MESSAGE),
        (
            mail(
                "Zustellung Ihres Pakets",
                "Es konnte nicht zugestellt werden. Fragen an kunde@b.example",
                sender="postmaster@b.example",
            ),
            Kind.MESSAGE,
        ),
        (mail("Fwd: failure notice", "<c@d.example>:\n550 5.1.1 user unknown"), Kind.MESSAGE),
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


PATH = "Return-Path: <>\n"
LETTER = """\
From: {sender}
To: shop@example.org
Subject: {subject}
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

The parcel service says that my address does not exist, and the parcel was
returned to sender. Your confirmation is attached. Ann
--b
Content-Type: message/rfc822

From: shop@example.org
To: ann@client.example
Subject: Your order 4711
Message-ID: <sent@example.org>

Thanks
--b--
"""


@pytest.mark.parametrize("subject", ["Delivery problem with order 4711", "Fwd: Delivery problem", "Undelivered mail"])
def test_a_letter_with_our_mail_attached_is_no_bounce(subject: str) -> None:
    assert kind_of(LETTER.format(sender="Ann <ann@client.example>", subject=subject)) is Kind.MESSAGE


@pytest.mark.parametrize("sender", ["postmaster@client.example", "admin@client.example"])
def test_nor_is_one_from_a_name_that_people_have_as_well(sender: str) -> None:
    assert kind_of(LETTER.format(sender=sender, subject="Your request")) is Kind.MESSAGE


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (
            "Delivery problem with your package",
            "We could not deliver it.\nQuestions? Phone: 415-555-0132 or ups@b.example",
        ),
        ("Your order: delivery delayed", "Your order has been delayed. Total: 450 EUR. shop@b.example"),
        (
            "Fwd: Delivery has failed",
            "---------- Forwarded message ---------\nFrom: UPS <x@b.example>\nSubject: a\n\nno",
        ),
        ("ご注文商品の配送について", "配信停止は info@b.example\n合計: 450 円"),
        ("メールマガジン配信 12月号", "価格: 500 円\n配信停止 info@b.example"),
        ("Échec du paiement", "Paiement refused.\nMontant: 450 EUR contact@b.example"),
        ("Cron <root@srv> backup: error message failed", "rsync: failed\n[ 500 ] could not be sent"),
        ("Zustellung Ihres Pakets", "Ihr Paket konnte nicht zugestellt werden. Fragen an kunde@b.example"),
    ],
)
@pytest.mark.parametrize("header", ["", "Auto-Submitted: auto-generated\n"])
def test_what_shops_and_programs_write_is_no_bounce(subject: str, text: str, header: str) -> None:
    header += "Content-Type: text/plain; charset=utf-8\n"
    assert kind_of(mail(subject, text, header=header)) is Kind.MESSAGE


@pytest.mark.parametrize(
    "text",
    [
        notice("Your message was not delivered to c@d.example", subject="your mail"),
        mail("failure notice", "<c@d.example>:\n550 5.1.1 user unknown", header=PATH),
        mail("failure notice", "<c@d.example>:\n550 5.1.1 user unknown", header="Auto-Submitted: auto-replied\n"),
        mail("Non-Delivery: hi", "It could not be delivered:\n550 user unknown c@d.example", sender="admin@b.example"),
        mail(
            "Message could not be delivered",
            "It was not delivered to c@d.example\n\nOriginal message:\n\nSubject: x\nFrom: me@example.org",
            header=PATH,
        ),
    ],
)
def test_what_a_program_wrote_and_a_server_said_or_sent_back_makes_a_bounce(text: str) -> None:
    assert kind_of(text) is Kind.BOUNCE


def test_the_topmost_return_path_is_the_servers() -> None:
    text = "It was not delivered:\n550 5.1.1 user unknown c@d.example"
    assert kind_of("Return-Path: <ann@b.example>\n" + mail("failure notice", text, header=PATH)) is Kind.MESSAGE
    theirs = "Return-Path: <ann@b.example>\n"
    assert kind_of(PATH + mail("failure notice", text, header=theirs)) is Kind.BOUNCE


def test_exims_report_of_a_failed_dmarc_policy_is_a_complaint() -> None:
    subject = "DMARC Forensic Report for b.example from IP 192.0.2.1"
    said = meaning_of(
        mail(subject, "A message claiming to be from you failed", header="Auto-Submitted: auto-replied\n")
    )
    assert (said.kind, said.feedback_type) == (Kind.COMPLAINT, "auth-failure")
