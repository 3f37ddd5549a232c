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


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Your order: delivery delayed", "Your delivery has been delayed. Write to service@b.example"),
        ("Delivery failed: your parcel", "We could not deliver it. Write to service@b.example"),
    ],
)
def test_what_shops_write_from_the_null_path_is_no_bounce(subject: str, text: str) -> None:
    assert kind_of(mail(subject, text, sender="Shop <shop@b.example>", header=PATH)) is Kind.MESSAGE


@pytest.mark.parametrize("day", ["4.5.26", "5.7.26", "4.1.27"])
def test_a_day_in_an_automatic_answer_is_no_status(day: str) -> None:
    text = f"Bis {day} bin ich nicht im Haus. Fragen an bob@b.example."
    header = PATH + "Auto-Submitted: auto-replied\nIn-Reply-To: <sent@example.org>\n"
    assert kind_of(mail("Auto: Your delivery report 4711", text, header=header)) is Kind.AUTOREPLY


@pytest.mark.parametrize("said", ["#5.7.26", "status: 5.7.26", "550 5.7.26", "5.1.1", "5.1.10", "5.7.509"])
def test_a_status_is_one_alone_or_behind_what_introduces_it(said: str) -> None:
    header = PATH + "Auto-Submitted: auto-replied\nIn-Reply-To: <sent@example.org>\n"
    text = f"It was not delivered to c@d.example\n{said} it failed"
    assert kind_of(mail("Undelivered: your delivery report", text, header=header)) is Kind.BOUNCE


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


HOLIDAY = "I am on holiday until Monday. Ask bob@b.example."


@pytest.mark.parametrize(
    "header", [PATH + "Auto-Submitted: auto-replied (vacation)\nIn-Reply-To: <sent@example.org>\n"]
)
def test_who_is_away_answers_under_whatever_subject_was_ours(header: str) -> None:
    assert kind_of(mail("Auto: Your delivery report 4711", HOLIDAY, header=header)) is Kind.AUTOREPLY
    said = "<c@d.example>:\n550 5.1.1 user unknown"
    assert kind_of(mail("Undelivered: your delivery report", said, header=header)) is Kind.BOUNCE


@pytest.mark.parametrize(
    ("subject", "sender", "header"),
    [
        ("Your order: delivery delayed", "Shop <shop@b.example>", PATH),
        ("Delivery report November", "bounces@news.example", ""),
        ("Your question about delivery problems", "postmaster@b.example", ""),
    ],
)
def test_a_subject_alone_is_a_mail_servers_only_under_a_name_of_theirs(subject: str, sender: str, header: str) -> None:
    assert kind_of(mail(subject, "Thanks for writing.", sender=sender, header=header)) is Kind.MESSAGE
    assert kind_of(mail(subject, "Thanks.", sender="MAILER-DAEMON@b.example", header=header)) is not Kind.MESSAGE


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Votre message", "Le serveur distant a dit pour c@d.example : 550 5.1.1 destinataire inconnu"),
        ("Su mensaje", "El servidor ha respondido a c@d.example: 550-5.1.1 no hay tal usuario"),
        ("Echec de l'envoi de votre message", "c@d.example : 550 5.1.1 inconnu"),
        ("Non distribuable : bonjour", "c@d.example : 550 5.1.1 inconnu"),
        ("No se puede entregar: hola", "c@d.example: 550 5.1.1 no existe"),
    ],
)
@pytest.mark.parametrize("sender", ["postmaster@b.example", "Ann <ann@b.example>"])
def test_what_a_server_said_makes_a_bounce_in_any_language(subject: str, text: str, sender: str) -> None:
    assert kind_of(mail(subject, text, sender=sender, header=PATH)) is Kind.BOUNCE


def test_a_number_of_a_version_is_no_servers_reply() -> None:
    text = "We run release 5.0.1 from Monday on. Write to help@b.example."
    assert kind_of(mail("Maintenance", text, sender="postmaster@b.example")) is Kind.MESSAGE
