"""A whole mail becomes an Email and its blobs; whatever is wrong with it, an Email comes out."""

import base64
from datetime import UTC, datetime

import pytest

from service.contract import EmailBodyPart, MailProblem, ProblemType, encode
from service.mime import MimeLimits, parse, parse_header_only, problem_email
from tests.mime.mails import LIMITS, attached, email_of, htmls, multipart, read, texts, tree

RECEIVED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PDF = "Content-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf\n"


def test_an_ordinary_mail() -> None:
    raw = b"From: a@example.org\r\nSubject: hi\r\n\r\nHello\r\n\r\nworld\r\n"
    parsed = parse(raw, received_at=RECEIVED, limits=LIMITS, inline_limit=1000)
    email = parsed.email
    assert (email.size, email.received_at, email.subject, email.preview) == (len(raw), RECEIVED, "hi", "Hello world")
    assert email.body_values["1"].value == "Hello\n\nworld\n"
    assert email.text_body == email.html_body == [email.body_structure]
    assert (parsed.blobs, parsed.problem, parsed.truncated, parsed.whole) == ({}, None, [], True)
    assert not email.has_attachment


def test_what_is_not_known_here_is_left_empty() -> None:
    email = email_of("\nx")
    assert (email.id, email.mailbox_ids, email.keywords) == ("", {}, {})


@pytest.mark.fault("C01")
@pytest.mark.parametrize("raw", [b"", b"\r\n", b"\n\n\n", b" ", b"\0", b":", b"\r", b"\xef\xbb\xbf", b"--", b"From "])
def test_nothing_at_all_is_still_a_mail(raw: bytes) -> None:
    parsed = read(raw)
    assert parsed.email.size == len(raw)
    assert parsed.problem is None
    assert tree(parsed.email.body_structure) == "text/plain"


@pytest.mark.parametrize("before", [b"\r\n", b"\n \r\n", b" ", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_what_stands_before_the_header_is_nobodys(before: bytes) -> None:
    parsed = read(before + b"Subject: x\r\n\r\nhi")
    assert (parsed.email.subject, texts(parsed)) == ("x", ["hi"])


def test_a_mail_without_a_header_is_text() -> None:
    parsed = read("Hello,\nthis is no header\n\nand this no body\n")
    assert texts(parsed) == ["Hello,\nthis is no header\n\nand this no body\n"]
    assert parsed.email.headers == []
    assert not parsed.whole


@pytest.mark.parametrize("gap", ["", " \n"])
def test_a_header_that_nothing_ends_is_followed_by_the_body(gap: str) -> None:
    parsed = read(f"Subject: x\nTo: a@example.org\n{gap}Dear Ann,\nnote: this is text\n")
    assert parsed.email.subject == "x"
    assert [header.name for header in parsed.email.headers] == ["Subject", "To"]
    assert texts(parsed) == ["Dear Ann,\nnote: this is text\n"]
    assert not parsed.whole


@pytest.mark.parametrize("newline", ["\r\n", "\n", "\r"])
def test_line_ends_of_all_systems(newline: str) -> None:
    parsed = read("Subject: x\nTo: a@example.org\n\none\ntwo\n".replace("\n", newline).encode())
    assert (parsed.email.subject, texts(parsed)) == ("x", ["one\ntwo\n"])


def test_flowed_text_is_left_as_it_is() -> None:
    # RFC 3676 is for those who show it.
    assert texts(read("Content-Type: text/plain; format=flowed\n\none \ntwo\n> q\n")) == ["one \ntwo\n> q\n"]


def test_attachments_are_blobs_with_their_names() -> None:
    content = base64.b64encode(b"%PDF").decode()
    parsed = read(multipart("b", "\nhi", f"{PDF}Content-Transfer-Encoding: base64\n\n{content}"))
    assert parsed.blobs == {"2": b"%PDF"}
    email = parsed.with_blobs({"2": "2026-01-abc"})
    (part,) = email.attachments
    assert (part.blob_id, part.name, part.size, part.disposition) == ("2026-01-abc", "a.pdf", 4, "attachment")
    root = email.body_structure
    assert root is not None
    assert isinstance(root.sub_parts, list)
    assert root.sub_parts[1] == part
    assert email.has_attachment


def test_without_blobs_the_email_is_the_same() -> None:
    parsed = read(multipart("b", "\nhi", f"{PDF}\nx"))
    assert parsed.with_blobs({}) is parsed.email


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (f"{PDF}\nx", True),
        ("Content-Type: application/pdf\n\nx", True),
        ("Content-Type: application/pdf\nContent-Disposition: inline\n\nx", False),
        ("Content-Type: text/plain\nContent-Disposition: attachment\n\nx", True),
        ("Content-Type: text/plain\n\nx", False),
    ],
)
def test_has_attachment(part: str, expected: bool) -> None:
    # RFC 8621 4.1.4: something in attachments that is not inline.
    assert email_of(multipart("b", "\nhi", part)).has_attachment is expected


def test_a_mail_that_is_nothing_but_an_attachment() -> None:
    parsed = read(f"{PDF}\nx")
    assert (texts(parsed), attached(parsed), parsed.blobs) == ([], ["a.pdf"], {"1": b"x"})


def test_html_alone_is_shown_as_both() -> None:
    parsed = read("Content-Type: text/html\n\n<p>x")
    assert texts(parsed) == htmls(parsed) == ["<p>x"]


def test_a_body_over_the_inline_limit_is_a_blob_with_a_prefix_in_the_event() -> None:
    body = ("Zeile über Größe\r\n" * 1000).encode()
    parsed = read(b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + body, inline_limit=10_000)
    value = parsed.email.body_values["1"]
    assert value.is_truncated
    assert not value.is_encoding_problem
    assert value.value.startswith("Zeile über Größe\nZeile")
    assert len(value.value) <= LIMITS.prefix_chars
    assert parsed.blobs == {"1": body}
    assert parsed.email.preview.startswith("Zeile über Größe Zeile")


def test_a_prefix_is_never_cut_within_a_character_or_a_tag() -> None:
    for pad in range(4):
        raw = b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + b"x" * pad + "€".encode() * 20_000
        value = read(raw, inline_limit=100).email.body_values["1"]
        assert not value.is_encoding_problem
        assert set(value.value) <= {"x", "€"}
    limits = MimeLimits(prefix_chars=20)
    raw = b"Content-Type: text/html\r\n\r\n<p>hello</p><a href='http://example.org/'>x</a>"
    assert read(raw, inline_limit=10, limits=limits).email.body_values["1"].value == "<p>hello</p>"


def test_a_truncated_body_with_a_lying_charset_says_both() -> None:
    raw = b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + "über ".encode("latin-1") * 10_000
    value = read(raw, inline_limit=100).email.body_values["1"]
    assert value.is_truncated
    assert value.is_encoding_problem


def parts_of(part: EmailBodyPart | None) -> list[EmailBodyPart]:
    if part is None:
        return []
    children = part.sub_parts if isinstance(part.sub_parts, list) else []
    return [part, *(leaf for child in children for leaf in parts_of(child))]


BIG_HEADER = "X-Big: " + "y" * 900 + "\n"
NAMED = f'Content-Type: image/png; name="{"n" * 200}"\nContent-Location: {"u" * 1900}\n\nx'


@pytest.mark.fault("C03")
@pytest.mark.parametrize("inline_limit", [0, 64 * 1024, 256 * 1024])
@pytest.mark.parametrize(
    "raw",
    [
        multipart("b", *["Content-Type: image/a\n\n"] * 2000).encode(),
        multipart("b", *[NAMED] * 900).encode(),
        multipart("b", "\nhi", header=BIG_HEADER * 1000).encode(),
        b"Subject: x\r\n\r\n" + b"\x01" * 250_000,
        multipart("b", *["\n" + "\x01" * 20_000] * 20).encode(),
        multipart("b", *["Content-Type: image/a\n\n"] * 240, "\n" + "\x01" * 5000).encode(),
        b"To: " + b'"\x01\x01\x01" <\x01@\x01>,' * 40_000 + b"\r\n\r\nhi",
        b"References: " + b"<\x01@\x01>" * 20_000 + b"\r\nMessage-ID: <" + b"\x01" * 900 + b">\r\n\r\nhi",
        b"Subject: " + b"\x01" * 4000 + b"\r\nX: " + b"\x01" * 400_000 + b"\r\n\r\n" + b"\x01 " * 10_000,
    ],
)
def test_the_event_stays_under_its_limit(raw: bytes, inline_limit: int) -> None:
    parsed = read(raw, inline_limit=inline_limit)
    email = parsed.with_blobs(dict.fromkeys(parsed.blobs, "2026-11-" + "a" * 64))
    assert len(encode(email)) <= max(inline_limit, 64 * 1024)
    known = {part.part_id for part in parts_of(email.body_structure)}
    assert set(parsed.blobs) <= known
    assert set(email.body_values) <= known


@pytest.mark.fault("C03")
def test_a_short_body_stays_beside_a_giant_header() -> None:
    parsed = read(BIG_HEADER * 500 + "\nhello")
    assert texts(parsed) == ["hello"]
    assert parsed.truncated == ["headers"]
    assert parsed.email.headers


def test_a_body_that_leaves_the_event_for_want_of_room_is_a_blob() -> None:
    parsed = read(b"Subject: x\r\n\r\n" + b"\x01" * 60_000, inline_limit=64 * 1024)
    assert parsed.email.body_values["1"].is_truncated
    assert parsed.blobs == {"1": b"\x01" * 60_000}


def test_parts_too_many_to_be_told_leave_a_problem() -> None:
    parsed = read(multipart("b", *[NAMED] * 900))
    assert parsed.email.body_structure is None
    assert (parsed.blobs, parsed.whole) == ({}, False)
    assert parsed.problem is not None
    assert parsed.with_blobs({"1": "2026-11-a"}).body_structure is None


@pytest.mark.parametrize(
    "header",
    [
        'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; boundary=b',
        "Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m",
        "Content-Type: application/x-pkcs7-mime; smime-type=authEnveloped-data",
        # By what it holds (RFC 5652 6.1), as old programs do not say it.
        "Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: base64\n\nMIAGCSqGSIb3DQEHA6CA\n",
        # What mailing lists and Exchange make of it.
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: application/pgp-encrypted\n\nVersion: 1",
        "Subject: x\n\n-----BEGIN PGP MESSAGE-----\n\nhQEM\n-----END PGP MESSAGE-----",
        "Subject: x\n\n\nHi there,\n\n-----BEGIN PGP MESSAGE-----\n\nhQEM\n-----END PGP MESSAGE-----",
    ],
)
def test_an_encrypted_mail_says_so(header: str) -> None:
    problem = read(f"{header}\n\n--b\n\nx\n--b--\n").problem
    assert problem is not None
    assert problem.type == "encrypted"


@pytest.mark.fault("C04")
def test_an_encrypted_text_that_is_cut_says_so() -> None:
    text = f"-----BEGIN PGP MESSAGE-----\n\n{'hQEM' * 16}\n" + f"{'hQEM' * 16}\n" * 10_000
    parsed = read(f"Subject: x\n\n{text}-----END PGP MESSAGE-----\n", inline_limit=10_000)
    assert parsed.email.body_values["1"].is_truncated
    assert parsed.problem is not None
    assert parsed.problem.type == "encrypted"


def test_a_signed_mail_is_not_encrypted() -> None:
    assert read("Content-Type: application/pkcs7-mime; smime-type=signed-data\n\nx").problem is None
    assert read("Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: base64\n\nMIIB\n").problem is None
    # An answer to a mail that was, and words about one.
    assert read("Subject: x\n\nHi\n> -----BEGIN PGP MESSAGE-----\n").problem is None
    assert read("Subject: x\n\n-----BEGIN PGP MESSAGE----- begins it.\n").problem is None
    assert read("Subject: x\n\nIt begins with\n-----BEGIN PGP MESSAGE-----\nand goes on.\n").problem is None


def test_a_text_with_a_detached_signature_is_not_whole_without_the_raw_bytes() -> None:
    # RFC 1847 2.1: the header of the part is signed, too.
    parts = "--b\n\nx\n--b\nContent-Type: application/pgp-signature\n\ny\n--b--\n"
    raw = f"Content-Type: multipart/signed; boundary=b\n\n{parts}"
    assert (read(raw).problem, read(raw).whole) == (None, False)


def test_facts_that_are_left_out_are_said() -> None:
    part = '--b\nContent-Type: application/x; name="a/b"\n\nx\n'
    parsed = read(f"Content-Type: multipart/mixed; boundary=b\n\n{part * 60}--b--\n")
    assert (len(parsed.email.mailbus.files or ()), parsed.truncated) == (50, ["files"])


def test_a_header_alone() -> None:
    parsed = parse_header_only(
        b"From: a@example.org\r\nSubject: big\r\n\r\n", 99_000_000, received_at=RECEIVED, limits=LIMITS
    )
    email = parsed.email
    assert (email.subject, email.size, email.received_at) == ("big", 99_000_000, RECEIVED)
    assert (email.body_structure, email.text_body, email.body_values) == (None, [], {})
    assert parsed.problem == MailProblem(ProblemType.TOO_LARGE, "99000000 bytes: over the limit for messages")
    assert parsed.with_blobs({}) == email


@pytest.mark.fault("C01")
@pytest.mark.parametrize("header", [b"", b"\0", b"Subject: x", b"Subject: x\rTo: a@b\r\r", b"X: " + b"\x01" * 900_000])
def test_a_header_alone_may_be_anything(header: bytes) -> None:
    parsed = parse_header_only(header, 5, received_at=None, limits=LIMITS)
    assert parsed.problem is not None
    assert parsed.problem.type == "too-large"
    assert len(encode(parsed.email)) <= 64 * 1024
    if b"Subject" in header:
        assert parsed.email.subject == "x"


def test_a_mail_of_which_nothing_is_known() -> None:
    problem = MailProblem(ProblemType.UNAVAILABLE, "why")
    email = problem_email(7, received_at=RECEIVED, problem=problem)
    assert (email.size, email.received_at, email.mailbus.problem) == (7, RECEIVED, problem)
    assert (email.headers, email.from_, email.body_structure, email.preview) == ([], None, None, "")


@pytest.mark.fault("C01")
def test_a_defect_of_ours_is_a_problem_and_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RecursionError

    with monkeypatch.context() as patched:
        patched.setattr("unicodedata.normalize", broken)
        parsed = read("Subject: =?utf-8?q?=C3=A9?=\n\nhi")
        header_only = parse_header_only(b"Subject: \xc3\xa9", 9, received_at=None, limits=LIMITS)
    assert parsed.problem == MailProblem(ProblemType.UNPARSEABLE, "the parser failed: RecursionError")
    assert parsed.email.size == len("Subject: =?utf-8?q?=C3=A9?=\r\n\r\nhi")
    assert header_only.email.size == 9


def test_parsing_is_deterministic() -> None:
    raw = multipart("b", "\nhi", f"{PDF}\nx").encode()
    assert read(raw).email == read(raw).email
    assert read(raw).blobs == read(raw).blobs
