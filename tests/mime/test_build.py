"""A request → bytes: what the standard library and our own parser read back is what was asked for."""

import re
import unicodedata
from datetime import UTC, datetime
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import format_datetime

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.contract import Address, Attachment, Recipient, RequestProblems, SendRequest, ascii_domain, check_request
from service.mime import MimeLimits, build, parse
from service.mime.encode import encoded_words, parameter_tokens, text_body, text_field

NOW = datetime(2026, 11, 24, 8, 30, 15, 123456, tzinfo=UTC)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=300)
# What a header may hold: check_request refuses CR, LF and NUL; other controls survive, other line separators too.
LINE = st.text(st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Zs")), max_size=200)


def made(request: SendRequest, blobs: dict[str, bytes] | None = None) -> bytes:
    return build(
        request,
        message_id="m1@example.com",
        boundary_seed="k",
        date=NOW,
        from_default="me@example.com",
        blobs=blobs or {},
    )


def read(data: bytes) -> EmailMessage:
    found = BytesParser(policy=policy.default).parsebytes(data)
    assert isinstance(found, EmailMessage)
    return found


def one(**fields: object) -> SendRequest:
    return SendRequest(**({"to": [Recipient("a@example.org")], "text": "hi"} | fields))  # type: ignore[arg-type]


def assert_wire(data: bytes) -> None:
    """CRLF only, ASCII, no line over 998."""
    assert data.isascii()
    assert data.count(b"\r") == data.count(b"\n") == data.count(b"\r\n")
    assert max(map(len, data.split(b"\r\n"))) <= 998
    assert data.endswith(b"\r\n")


def test_a_plain_mail_reads_as_a_person_would_write_it() -> None:
    data = made(
        one(subject="Your order", from_=Address("shop@example.com", "Shop"), cc=[Address("c@example.org", "C")])
    )
    assert data.decode() == (
        "Date: Tue, 24 Nov 2026 08:30:15 +0000\r\n"
        "From: Shop <shop@example.com>\r\n"
        "To: a@example.org\r\n"
        "Cc: C <c@example.org>\r\n"
        "Subject: Your order\r\n"
        "Message-ID: <m1@example.com>\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding: 7bit\r\n"
        "\r\n"
        "hi\r\n"
    )


def test_bcc_never_stands_in_the_bytes() -> None:
    data = made(one(to=[], bcc=[Address("secret@example.org", "Secret")]))
    assert b"secret" not in data.lower()
    assert b"To: undisclosed-recipients:;" in data


def test_the_same_request_gives_the_same_bytes() -> None:
    request = one(html="<p>x</p>", attachments=[Attachment(content=b"x" * 1000, name="ä.pdf")])
    assert made(request) == made(request)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(subject=LINE, name=LINE, text=TEXT, header=LINE)
@example(subject="=?utf-8?q?x?= y", name='a "b" \\c', text="From me\n.\n..\r\n \t\n", header=" a  b ")
@example(subject="ä" * 200, name="ö" * 200, text="ü" * 2000, header="x" * 2000)
def test_what_is_built_reads_back_the_same(subject: str, name: str, text: str, header: str) -> None:
    request = one(subject=subject, from_=Address("me@example.com", name or None), text=text, headers={"X-Note": header})
    assert not check_request(request)
    data = made(request)
    assert_wire(data)

    wanted = re.sub(r"\r\n|\r|\n", "\n", text)
    email = parse(data, received_at=NOW, limits=MimeLimits(), inline_limit=1 << 20).email
    nfc = unicodedata.normalize("NFC", subject)
    assert (email.subject or "") == nfc.strip() or email.subject == nfc
    assert email.from_ is not None
    body = next(iter(email.body_values.values())).value
    assert re.sub(r"\r\n|\r|\n", "\n", body).removesuffix("\n") == wanted.removesuffix("\n")

    found = read(data)
    content = found.get_content()
    assert re.sub(r"\r\n|\r|\n", "\n", content).removesuffix("\n") == wanted.removesuffix("\n")


@settings(max_examples=300, deadline=None)
@given(name=LINE.filter(lambda text: text.strip() == text and "  " not in text and text != ""))
def test_a_display_name_reads_back(name: str) -> None:
    data = made(one(to=[Recipient("a@example.org", name), Recipient("b@example.org")]))
    email = parse(data, received_at=NOW, limits=MimeLimits(), inline_limit=1 << 20).email
    assert email.to is not None
    assert [address.email for address in email.to] == ["a@example.org", "b@example.org"]
    assert email.to[0].name == unicodedata.normalize("NFC", name)


@settings(max_examples=200, deadline=None)
@given(name=LINE.filter(lambda text: 1 <= len(text) <= 255 and text.strip() == text), content=st.binary(max_size=500))
def test_an_attachment_reads_back(name: str, content: bytes) -> None:
    data = made(one(attachments=[Attachment(name=name, content=content, type="application/x-y")]))
    assert_wire(data)
    (part,) = read(data).iter_attachments()
    assert part.get_content() == content
    assert part.get_content_type() == "application/x-y"
    assert part.get_content_disposition() == "attachment"
    parsed = parse(data, received_at=NOW, limits=MimeLimits(), inline_limit=1 << 20).email
    assert parsed.attachments[0].type == "application/x-y"


def test_structure_is_mixed_around_alternative_around_related() -> None:
    request = one(
        html="<img src=cid:logo>",
        attachments=[
            Attachment(content=b"png", name="logo.png", type="image/png", disposition="inline", cid="logo"),
            Attachment(blob_id="202611-" + "a" * 64, name="bill.pdf", type="application/pdf"),
        ],
    )
    found = read(made(request, {"202611-" + "a" * 64: b"pdf"}))
    assert found.get_content_type() == "multipart/mixed"
    alternative, pdf = found.iter_parts()
    assert alternative.get_content_type() == "multipart/alternative"
    text, related = alternative.iter_parts()
    assert (text.get_content_type(), related.get_content_type()) == ("text/plain", "multipart/related")
    html, logo = related.iter_parts()
    assert html.get_content_type() == "text/html"
    assert logo["Content-ID"] == "<logo>"
    assert logo.get_content() == b"png"
    assert pdf.get_content() == b"pdf"
    assert pdf.get_filename() == "bill.pdf"


def test_threading_ids_get_their_brackets() -> None:
    found = read(made(one(in_reply_to="x@y", references=["w@y", "x@y"])))
    assert found["In-Reply-To"] == "<x@y>"
    assert found["References"].split() == ["<w@y>", "<x@y>"]


def test_a_domain_of_another_script_goes_as_the_dns_has_it() -> None:
    assert ascii_domain("info@bücher.example") == "info@xn--bcher-kva.example"
    assert b"To: info@xn--bcher-kva.example" in made(one(to=[Recipient("info@bücher.example")]))


def test_a_domain_that_is_no_name_is_a_problem_of_its_field() -> None:
    with pytest.raises(RequestProblems) as caught:
        made(one(to=[Recipient("a@x.example"), Recipient("a@-ü-.example")]))
    assert caught.value.problems[0].field == "to[1].email"


def test_a_local_part_of_another_script_stays_utf8() -> None:
    assert "To: jürgen@example.org\r\n".encode() in made(one(to=[Recipient("jürgen@example.org")]))


@pytest.mark.fault("G07")
@settings(max_examples=500, deadline=None)
@given(value=st.text(max_size=200))
def test_no_value_ends_its_field(value: str) -> None:
    """Whatever the value, the checks refuse it or the header holds it as one field."""
    request = one(
        subject=value,
        headers={"X-Note": value},
        to=[Recipient("a@example.org", value)],
        attachments=[Attachment(content=b"", name=value or "x")],
    )
    if check_request(request):
        return
    data = made(request)
    head = data.partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    assert names == [
        b"Date", b"From", b"To", b"Subject", b"Message-ID", b"X-Note", b"MIME-Version", b"Content-Type",
    ]  # fmt: skip
    assert_wire(data)


def test_bodies_take_the_encoding_that_costs_least() -> None:
    assert text_body("plain\nlines\n") == ("7bit", b"plain\r\nlines\r\n")
    assert text_body("ein Wörtchen in einem sonst schlichten Satz")[0] == "quoted-printable"
    assert text_body("ありがとう")[0] == "base64"
    assert text_body("x" * 2000)[0] == "quoted-printable"
    assert text_body("From me")[1].startswith(b"=46rom")


def test_pieces_keep_their_limits() -> None:
    assert all(len(word) <= 75 for word in encoded_words("ä€😀 x" * 100))
    assert all(len(token) <= 76 for token in parameter_tokens("filename", "ä€😀 x" * 50))
    assert all(len(line) <= 78 for line in text_field("Subject", "word " * 100 + "end").split("\r\n"))


def test_a_long_run_of_spaces_makes_no_line_that_is_too_long() -> None:
    """RFC 5322 2.1.1: 998 characters a line at most; some servers refuse the mail."""
    subject = "a" + " " * 1500 + "b"
    made = text_field("Subject", subject)
    assert max(map(len, made.split("\r\n"))) <= 76
    assert str(make_header(decode_header(made.removeprefix("Subject:").strip()))) == subject


@pytest.mark.parametrize(
    ("name", "value", "lines"),
    [
        ("List-Id", "Grüße <news.example.org>", ["List-Id: =?utf-8?b?R3LDvMOfZQ==?= <news.example.org>"]),
        ("list-id", '"All, news" <news.example.org>', ['list-id: "All, news" <news.example.org>']),
        ("List-Id", "All, news <news.example.org>", ['List-Id: "All, news" <news.example.org>']),
        ("List-Id", '"Grüße, alle" <n.example.org>', ["List-Id: =?utf-8?b?R3LDvMOfZSwgYWxsZQ==?= <n.example.org>"]),
        ("List-Id", "=?utf-8?q?Gr=C3=BC?= <n.example.org>", ["List-Id: =?utf-8?q?Gr=C3=BC?= <n.example.org>"]),
        ("List-Id", "<n.example.org>", ["List-Id: <n.example.org>"]),
        ("List-Unsubscribe", "<https://x.example/?u==?4711?=>", ["List-Unsubscribe: <https://x.example/?u==?4711?=>"]),
        (
            "List-Unsubscribe",
            f"<https://x.example/{'u' * 900}>,\t<mailto:leave@x.example>",
            [f"List-Unsubscribe: <https://x.example/{'u' * 900}>,", " <mailto:leave@x.example>"],
        ),
        (
            "Disposition-Notification-To",
            "=?utf-8?q?J=C3=BCrgen?= <j@x.example>",
            ["Disposition-Notification-To: =?utf-8?q?J=C3=BCrgen?= <j@x.example>"],
        ),
    ],
)
def test_what_is_no_free_text_goes_out_as_it_is_given(name: str, value: str, lines: list[str]) -> None:
    """RFC 2047 5: an encoded word in a URL or an address is read by nobody; words before a list's id may be one."""
    request = one(headers={name: value})
    assert check_request(request) == []
    data = made(request)
    assert_wire(data)
    written = data.decode().partition(f"\r\n{lines[0]}\r\n")[2]
    assert written.startswith("".join(f"{line}\r\n" for line in [*lines[1:], "MIME-Version: 1.0"]))


def test_a_line_with_encoded_words_has_76_characters_at_most() -> None:
    """RFC 2047 2, also where one stands behind the name of its field."""
    name = "Grüße an alle, die das lesen wollen, und an die anderen auch " * 3
    data = made(one(reply_to=[Address("a@x.example", name)], headers={"List-Id": f"{name}<n.example.org>"}))
    assert all(len(line) <= 76 for line in data.decode().splitlines() if "=?" in line)


def test_quoted_local_parts_literals_and_parameters_of_a_type_read_back() -> None:
    invite = Attachment(type='text/calendar; method=REQUEST; name="in vite.ics"', content=b"BEGIN:VCALENDAR\r\n")
    addresses = [Recipient('"two words"@example.org', "A"), Recipient("b@[192.0.2.1]")]
    data = made(one(to=addresses, attachments=[invite]))
    assert_wire(data)
    message = read(data)
    assert b'To: A <"two words"@example.org>, b@[192.0.2.1]\r\n' in data
    (part,) = message.iter_attachments()
    assert part.get_content_type() == "text/calendar"
    assert (part.get_param("method"), part.get_param("name")) == ("REQUEST", "in vite.ics")


@settings(max_examples=100)
@given(date=st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2199, 1, 1), timezones=st.just(UTC)))
def test_the_date_is_as_the_standard_library_writes_it(date: datetime) -> None:
    data = build(one(), message_id="m", boundary_seed="k", date=date, from_default="me@x.example", blobs={})
    assert data.startswith(f"Date: {format_datetime(date.replace(microsecond=0))}\r\n".encode())
