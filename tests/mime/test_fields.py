"""The convenience properties of an Email. RFC 8621 4.1.2 and 4.1.3."""

import pytest

from tests.mime.mails import LIMITS, email_of, read


def ids(value: str) -> list[str] | None:
    return email_of(f"Message-ID: {value}\n\n").message_id


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("<a@b>", ["a@b"]),
        ("  <a@b>  (a comment)", ["a@b"]),
        ("<a@b> <c@d>", ["a@b", "c@d"]),
        ("<a@b>\n <c@d>", ["a@b", "c@d"]),
        ("<a @ b>", ["a@b"]),
        ("<1234   @   local(blah)  .machine .example>", ["1234@local.machine.example"]),  # RFC 5322 A.6.3
        ("<a(1)@b>", ["a(1)@b"]),
        ("(foo <bar@baz>) <real@x>", ["real@x"]),
        ("(see <a@b>)", ["a@b"]),
        ("(never ends <a@b>", ["a@b"]),
        ("a@b", ["a@b"]),  # without brackets
        ("<no-at-sign>", ["no-at-sign"]),
        ("", None),
        ("<>", None),
        ("nothing of the kind", None),
    ],
)
def test_message_ids(value: str, expected: list[str] | None) -> None:
    assert ids(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('Message from Ann <ann@x.example> of "Thu, 3 Dec" <b@x>', ["b@x"]),
        ("<b@x> from Ann <ann@x.example>", ["b@x"]),
        ('Your message of "Thu" <b@x>', ["b@x"]),
        ("<a@x> <b@x> (Ann <ann@x.example>)", ["a@x", "b@x"]),
        ("<a@x>,\n <b@x>", ["a@x", "b@x"]),
        ("Re: <a@x> <b@x>", ["a@x", "b@x"]),
        ("<a@x> AND <b@x>", ["a@x", "b@x"]),
        ("Message-ID: <a@x> <b@x>", ["a@x", "b@x"]),
        ("Ann <ann@x.example>'s message of Thu <b@x>", ["b@x"]),
    ],
)
def test_what_a_mail_answers_is_no_persons_address(value: str, expected: list[str]) -> None:
    # RFC 5322 4.5.4: a phrase may stand there.
    assert email_of(f"In-Reply-To: {value}\n\n").in_reply_to == expected


@pytest.mark.fault("C08")
def test_a_message_id_that_is_absent_doubled_or_endless() -> None:
    assert email_of("Subject: x\n\n").message_id is None
    assert email_of("Message-ID: <a@b>\nMessage-ID: <c@d>\n\n").message_id == ["c@d"]
    assert ids(f"<{'x' * 65_536}@b>") is None


def test_references_keep_the_first_and_the_last_ones() -> None:
    # RFC 5322 3.6.4: the thread's root and the parent are what readers look at.
    parsed = read("References: " + "\n ".join(f"<{number}@x>" for number in range(2000)) + "\n\n")
    references = parsed.email.references or []
    assert len(references) == LIMITS.references
    assert (references[0], references[-1]) == ("0@x", "1999@x")
    assert "references" in parsed.truncated


def test_the_properties_of_an_ordinary_mail() -> None:
    email = email_of(
        "From: Ann <ann@example.org>\nSender: s@example.org\nReply-To: r@example.org\nTo: t@example.org\n"
        "Cc: c@example.org\nBcc: b@example.org\nSubject: Re: x\nDate: Tue, 14 Nov 2023 22:13:20 +0100\n"
        "Message-ID: <1@example.org>\nIn-Reply-To: <0@example.org>\nReferences: <0@example.org>\n\nHello\n"
    )
    lists = (email.from_, email.sender, email.reply_to, email.to, email.cc, email.bcc)
    assert [[address.email for address in one or []] for one in lists] == [
        ["ann@example.org"],
        ["s@example.org"],
        ["r@example.org"],
        ["t@example.org"],
        ["c@example.org"],
        ["b@example.org"],
    ]
    assert (email.subject, email.message_id, email.in_reply_to) == ("Re: x", ["1@example.org"], ["0@example.org"])
    assert email.sent_at is not None
    assert email.sent_at.isoformat() == "2023-11-14T22:13:20+01:00"
    assert [header.name for header in email.headers][:2] == ["From", "Sender"]


def test_an_empty_subject_is_empty_and_a_missing_one_null() -> None:
    assert email_of("Subject:\n\n").subject == ""
    assert email_of("To: a@b\n\n").subject is None


def test_a_subject_over_the_limit_is_cut_and_named() -> None:
    parsed = read("Subject: " + "x" * 5000 + "\n\n")
    assert len(parsed.email.subject or "") == LIMITS.subject_chars
    assert parsed.truncated == ["subject"]


@pytest.mark.fault("C04")
@pytest.mark.parametrize(("field", "named"), [("Subject", "subject"), ("To", "recipients")])
def test_encoded_words_over_the_limit_are_named(field: str, named: str) -> None:
    words = "=?utf-8?q??= " * (LIMITS.encoded_words + 1)
    parsed = read(f"{field}: {words} <a@example.org>\n\n")
    assert parsed.truncated == [named]
    assert not parsed.whole


def test_a_parts_own_fields() -> None:
    part = email_of(
        "Content-Type: image/png\nContent-ID: <im age@x>\nContent-Language: de, en (both)\n"
        "Content-Location: http://x.example/\n a.png\n\nx"
    ).body_structure
    assert part is not None
    assert (part.cid, part.language, part.location) == ("image@x", ["de", "en"], "http://x.example/a.png")


@pytest.mark.fault("C04")
@pytest.mark.parametrize(
    "field",
    [
        "Content-ID: <" + "x" * 2000 + "@x>",
        "Content-Language: " + "de, " * 500,
        "Content-Location: http://x.example/" + "x" * 5000,
        "Content-Type: image/png; x=" + "x" * 32_768 + "; name=a.png",
        "Content-Disposition: inline; x=" + "x" * 32_768 + "; filename=a.png",
    ],
)
def test_a_parts_field_over_its_limit_is_named(field: str) -> None:
    parsed = read(f"{field}\n\nx")
    assert parsed.truncated == ["names"]
    assert not parsed.whole
