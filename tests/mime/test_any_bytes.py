"""Any bytes become an event: random ones, mails with flipped bytes, and mails of another program without loss."""

from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mime.invariants import check
from tests.mime.mails import read, texts

# Pieces that mean something to a parser: random bytes alone never get past the header.
PIECES = st.sampled_from(
    [
        b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b" ", b"\t", b":", b";", b"=", b'"', b"--", b"--b", b"--b--",
        b"\0", b"From: ", b"To: ", b"Subject: ", b"Date: ", b"References: ", b"<a@b>", b"(", b")", b"<", b">",
        b",", b"@", b"\\", b"Content-Type: ", b"multipart/mixed", b"multipart/alternative", b"; boundary=b",
        b"; boundary=", b"text/html", b"message/rfc822", b"; charset=", b"utf-8", b"utf-7", b"iso-2022-jp",
        b"x-unknown", b"; name*0*=", b"''%C3", b"Content-Transfer-Encoding: ", b"base64", b"quoted-printable",
        b"x-uuencode", b"begin 644 a\n", b"=\r\n", b"=C3", b"Content-Disposition: attachment; filename=",
        b"=?utf-8?q?", b"=?utf-8?b?", b"?=", b"\xff", b"\xc3\xbc", b"\xed\xa0\x80", b"+2AA-", b"\x1b$B",
        b"1 Jan 9999 00:00 -0500", b"<div>", b"aGVsbG8=",
    ]
)  # fmt: skip
SCRAPS = st.lists(PIECES | st.binary(max_size=8), max_size=60).map(b"".join)

SEED = (
    b"Received: from a.example by b.example; Tue, 14 Nov 2023 22:13:20 +0100\r\n"
    b'From: =?utf-8?q?J=C3=B6rg?= <j@example.org>\r\nTo: Team: "A, B" <a@example.org>, b@example.org;\r\n'
    b"Subject: =?iso-8859-1?b?R3L832U=?=\r\n =?utf-8?q?_mehr?=\r\nDate: Tue, 14 Nov 2023 22:13:20 +0100 (CET)\r\n"
    b"Message-ID: <1@example.org>\r\nReferences: <0@example.org>\r\n <00@example.org>\r\n"
    b'Content-Type: multipart/mixed; boundary="out"\r\n\r\n--out\r\n'
    b"Content-Type: multipart/alternative; boundary=in\r\n\r\n--in\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe=\r\n und mehr\r\n--in\r\n"
    b"Content-Type: text/html; charset=iso-8859-1\r\n\r\n<p>Gr\xfc\xdfe</p>\r\n--in--\r\n--out\r\n"
    b"Content-Type: application/pdf; name*0*=utf-8''%C3%BC; name*1=.pdf\r\nContent-Transfer-Encoding: base64\r\n"
    b"Content-Disposition: attachment\r\nContent-ID: <c@example.org>\r\n\r\nJVBERi0xLjQKJQ==\r\n--out\r\n"
    b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx\r\n--out--\r\n"
)


@pytest.mark.fault("C01")
@given(st.binary(max_size=2000))
def test_any_bytes_become_an_event(raw: bytes) -> None:
    check(raw)


@pytest.mark.fault("C01", "C05")
@settings(max_examples=300)
@given(SCRAPS)
def test_any_scraps_of_mail_become_an_event(raw: bytes) -> None:
    check(raw)


@pytest.mark.fault("C01")
@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), min_size=1, max_size=20))
def test_a_mail_with_flipped_bytes_becomes_an_event(flips: list[tuple[int, int]]) -> None:
    raw = bytearray(SEED)
    for at, byte in flips:
        raw[at] = byte
    check(bytes(raw))


@pytest.mark.fault("C01")
def test_a_mail_cut_anywhere_becomes_an_event() -> None:
    for end in range(len(SEED)):
        check(SEED[:end])


@pytest.mark.fault("C01")
def test_every_single_byte_of_a_mail_may_be_wrong() -> None:
    for at in range(len(SEED)):
        for byte in (0, 0x0A, 0xFF):
            raw = bytearray(SEED)
            raw[at] = byte
            check(bytes(raw))


WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\u0085"), min_size=1, max_size=60
)
LINES = st.lists(WORDS, max_size=20).map("\n".join)
NAME = WORDS.map(str.strip).filter(bool)


@settings(max_examples=200, deadline=None)
@given(subject=NAME, name=NAME, text=LINES, html=LINES, attachment=st.binary(max_size=3000), filename=NAME)
def test_what_the_standard_library_writes_is_read_without_loss(
    subject: str, name: str, text: str, html: str, attachment: bytes, filename: str
) -> None:
    message = EmailMessage(policy=SMTP)
    message["Subject"] = subject
    message["To"] = [Address(name, "a", "example.org"), Address("", "b", "example.org")]
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    message.add_attachment(attachment, maintype="application", subtype="pdf", filename=filename)
    parsed = read(message.as_bytes())

    assert parsed.whole
    assert parsed.blobs == {"3": attachment}
    (part,) = parsed.email.attachments
    assert (part.name, part.type) == (filename, "application/pdf")
    ours, theirs = texts(parsed), message.get_body(("plain",))
    assert theirs is not None
    assert ours == [theirs.get_content().replace("\r\n", "\n")]
    assert [one.email for one in parsed.email.to or []] == ["a@example.org", "b@example.org"]
