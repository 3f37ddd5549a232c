"""Mails made to take a parser's time or memory. What took too long is told by the limit of a test's time."""

import struct
import tracemalloc
from collections.abc import Callable
from itertools import count

import pytest

from service.mime import MimeLimits, parse
from service.mime.header import first_junk
from service.mime.tnef import read_tnef
from service.mime.transfer import decode_transfer
from service.mime.unpack import unpack_text
from tests.mime.mails import mail
from tests.mime.test_unpack import attribute, tnef

MEGABYTE = 1024 * 1024
QUARTER = MEGABYTE // 4


def peak(work: Callable[[], object]) -> int:
    """The most bytes that were in use at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.fault("C04")
def test_an_address_field_of_spaces_that_do_not_fold_is_read() -> None:
    field = "(a) a " + "\u00a0" * 30_000 + " b@c.example"
    raw = mail("".join(f"{name}: {field}\n" for name in ("From", "Sender", "To", "Cc", "Bcc", "Reply-To")) + "\ntext")
    parsed = parse(raw, received_at=None, limits=MimeLimits(), inline_limit=MEGABYTE)
    assert [one.email for one in parsed.email.to or ()] == ["b@c.example"]


@pytest.mark.fault("C04")
@pytest.mark.parametrize(
    ("header", "piece"),
    [
        ("", b"x"),
        ("", b"word "),
        ("Content-Type: text/plain; format=flowed\n", b"x "),
        ("Content-Type: text/html\n", b"x "),
        ("Content-Transfer-Encoding: quoted-printable\n", b"=C3=BC"),
        ("Content-Transfer-Encoding: base64\n", b"QUJD"),
    ],
)
def test_a_line_of_50_mb_is_read(header: str, piece: bytes) -> None:
    raw = mail(f"Subject: long\n{header}\n") + piece * (50 * MEGABYTE // len(piece))
    parsed = parse(raw, received_at=None, limits=MimeLimits(), inline_limit=MEGABYTE)
    assert (parsed.email.subject, parsed.email.size) == ("long", len(raw))
    assert parsed.email.body_values["1"].is_truncated
    assert parsed.blobs["1"]


@pytest.mark.fault("C06")
def test_boundaries_that_are_long_and_alike_are_told_apart() -> None:
    alike = "b" * 10_000
    text = ["Subject: x\n"]
    for number in range(90):
        boundary = f"{alike}{number:03}"
        text.append(f"Content-Type: multipart/mixed; boundary={boundary}\n\n--{boundary}\n")
    text += [
        f"Content-Type: multipart/mixed; boundary=c{number}\n\n--c{number}\n\ntext\n--{boundary}\n"
        for number in range(300)
    ]
    parsed = parse(mail("".join(text)), received_at=None, limits=MimeLimits(), inline_limit=MEGABYTE)
    assert len(parsed.email.text_body) == 300


@pytest.mark.fault("C07")
@pytest.mark.parametrize("piece", [b"=ab", b"=", b"==", b"=\r\n"])
def test_a_yenc_file_of_escapes_takes_little_more_than_its_size(piece: bytes) -> None:
    text = b"=ybegin line=128 size=5 name=a\r\n" + piece * (QUARTER // len(piece)) + b"\r\n=yend size=7\r\n"
    assert peak(lambda: unpack_text(text, most=9)) < 6 * len(text)


def test_a_yenc_file_is_the_same_wherever_it_is_cut_to_pieces() -> None:
    data = bytes(byte for _, byte in zip(range(200_000), (n * 7 % 256 for n in count()), strict=False))
    coded = b"".join(
        b"=" + bytes(((byte + 106) & 255,)) if (byte + 42) & 255 in (0, 10, 13, 61) else bytes(((byte + 42) & 255,))
        for byte in data
    )
    text = b"=ybegin line=128 size=200000 name=a\r\n" + coded + b"\r\n=yend size=200000\r\n"
    assert [one.data for one in unpack_text(text, most=9).files] == [data]


@pytest.mark.fault("C07")
def test_a_uuencoded_body_of_short_lines_takes_little_more_than_its_size() -> None:
    text = b"begin 644 a\n" + b"!A\n" * (QUARTER // 3) + b"end\n"
    assert peak(lambda: decode_transfer(text, "x-uuencode")) < 4 * len(text)


@pytest.mark.fault("C03")
def test_a_header_that_never_ends_takes_no_memory_for_its_lines() -> None:
    block = b"no field\n" + b"abc\n" * (MEGABYTE // 4)
    assert peak(lambda: first_junk(block)) < MEGABYTE // 2


def compressed(size: int) -> bytes:
    """[MS-OXRTFCP]: nearly nothing that becomes `size` bytes, eight times what it was."""
    at, out, total = 207, bytearray(), 0
    while total < size:
        out.append(0xFF)
        for _ in range(8):
            offset = (at - 17) % 4096
            out += bytes((offset >> 4, (offset & 15) << 4 | 15))
            at, total = (at + 17) % 4096, total + 17
    return struct.pack("<IIII", len(out) + 12, total, 0x75465A4C, 0) + bytes(out)


def texts(size: int, times: int) -> bytes:
    """A TNEF stream with a compressed text so many times."""
    text = compressed(size)
    text += bytes(-len(text) % 4)
    one = struct.pack("<HHII", 0x102, 0x1009, 1, len(text)) + text
    return tnef(attribute(1, 0x00069003, struct.pack("<I", times) + one * times))


@pytest.mark.fault("C07")
def test_compressed_texts_have_one_limit_together() -> None:
    found = read_tnef(texts(4000, 10), files=20, rtf_bytes=10_000)
    assert found.cut
    assert found.rtf_bytes == sum(len(body.data) for body in found.bodies) <= 10_000


@pytest.mark.fault("C07")
def test_bodies_of_a_stream_are_no_more_than_its_files_may_be() -> None:
    found = read_tnef(texts(100, 10), files=3, rtf_bytes=10_000)
    assert found.cut
    assert len(found.bodies) == 3


@pytest.mark.fault("C07")
def test_all_compressed_texts_of_a_mail_have_one_limit() -> None:
    stream = texts(400_000, 1)
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"".join(
        b"--b\r\nContent-Type: application/ms-tnef\r\nContent-Transfer-Encoding: binary\r\n\r\n" + stream + b"\r\n"
        for _ in range(4)
    )
    parsed = parse(raw, received_at=None, limits=MimeLimits(), inline_limit=MEGABYTE)
    assert parsed.truncated == ["unpacked"]
    assert sum(part.type == "application/rtf" for part in parsed.email.attachments) == 2
