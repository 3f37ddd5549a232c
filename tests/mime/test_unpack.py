"""Files within texts and within winmail.dat files."""

import binascii
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.mime.tnef import decompress_rtf
from service.mime.unpack import unpack_text, unpack_tnef
from tests.mime.invariants import check
from tests.mime.mails import attached, multipart, read, texts

CONTENT = bytes(range(256)) * 3


def uu(name: str, data: bytes) -> bytes:
    lines = b"".join(binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45))
    return f"begin 644 {name}\n".encode() + lines + b"`\nend\n"


def yenc(name: str, data: bytes) -> bytes:
    out = bytearray()
    for byte in data:
        value = (byte + 42) & 255
        out += bytes((61, (value + 64) & 255)) if value in (0, 10, 13, 61) else bytes((value,))
        if len(out) % 130 > 127:
            out += b"\r\n"
    return f"=ybegin line=128 size={len(data)} name={name}\r\n".encode() + bytes(out) + b"\r\n=yend size=768\r\n"


def attribute(level: int, id: int, data: bytes) -> bytes:
    return struct.pack("<BII", level, id, len(data)) + data + b"\0\0"


def tnef(*attributes: bytes) -> bytes:
    return struct.pack("<IH", 0x223E9F78, 1) + b"".join(attributes)


def file_in_tnef(name: str, data: bytes) -> bytes:
    return (
        attribute(2, 0x00069002, b"\0" * 14)
        + attribute(2, 0x00018010, name.encode() + b"\0")
        + attribute(2, 0x0006800F, data)
    )


@pytest.mark.fault("C07")
@pytest.mark.parametrize("write", [uu, yenc])
def test_a_file_within_a_text_is_an_attachment_and_the_text_stays(write: object) -> None:
    assert callable(write)
    inside = write("data.bin", CONTENT)
    raw = b"From: a@b\nContent-Type: text/plain; charset=latin-1\nContent-Transfer-Encoding: 8bit\n\nHere:\n\n" + inside
    parsed = read(raw.replace(b"\r\n", b"\n") if write is uu else raw)
    assert attached(parsed) == ["data.bin"]
    (part,) = parsed.email.attachments
    assert (part.part_id, part.size) == ("1.1", len(CONTENT))
    assert parsed.blobs["1.1"] == CONTENT
    assert texts(parsed)[0].startswith("Here:")
    assert parsed.email.has_attachment


def test_two_files_within_one_text() -> None:
    found = unpack_text(b"x\n" + uu("one", b"1" * 50) + b"between\n" + uu("two", b"%PDF-1.4") + b"end\n", most=10)
    assert [(one.name, one.type, one.data) for one in found.files] == [
        ("one", "application/octet-stream", b"1" * 50),
        ("two", "application/pdf", b"%PDF-1.4"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"begin 644 data.bin\nno such thing\nend\n",
        b"begin 644 data.bin\n" + b"M" * 61 + b"\n",
        b"We begin 644 things.\nend\n",
        b"=ybegin line=128 size=3 name=x\nabc\n",
    ],
)
def test_what_only_looks_like_a_file_is_text(text: bytes) -> None:
    assert unpack_text(text, most=10).files == []


@pytest.mark.fault("C07")
def test_a_winmail_dat_stays_and_its_files_stand_beside_it() -> None:
    stream = tnef(attribute(1, 0x0002800C, b"Hello\0"), file_in_tnef("plan.pdf", b"%PDF-1.4 plan"))
    part = "Content-Type: application/ms-tnef; name=winmail.dat\nContent-Transfer-Encoding: base64\n\n"
    raw = multipart("b", "Content-Type: text/plain\n\nHi", part + binascii.b2a_base64(stream).decode())
    parsed = read(raw)
    assert attached(parsed) == ["winmail.dat", "message.txt", "plan.pdf"]
    assert [one.part_id for one in parsed.email.attachments] == ["2", "2.1", "2.2"]
    assert (parsed.blobs["2"], parsed.blobs["2.1"], parsed.blobs["2.2"]) == (stream, b"Hello", b"%PDF-1.4 plan")
    assert parsed.whole


@pytest.mark.fault("C07")
def test_more_files_than_the_limit_are_cut_and_said() -> None:
    stream = tnef(*(file_in_tnef(f"{number}", b"x") for number in range(150)))
    part = "Content-Type: application/ms-tnef\nContent-Transfer-Encoding: base64\n\n"
    parsed = read(multipart("b", part + binascii.b2a_base64(stream).decode()))
    assert len(parsed.email.attachments) == 101
    assert parsed.truncated == ["unpacked"]
    assert not parsed.whole


@pytest.mark.parametrize(
    "stream",
    [
        tnef(file_in_tnef("a", b"within"))[:55],
        struct.pack("<IHBII", 0x223E9F78, 1, 2, 0x0006800F, 0xFFFFFFFF),
        b"no stream at all",
    ],
    ids=["cut off", "lies of its length", "another file"],
)
def test_a_stream_that_is_not_whole_is_said_and_stays(stream: bytes) -> None:
    parsed = read(
        b"From: a@b\nContent-Type: application/ms-tnef\nContent-Transfer-Encoding: base64\n\n"
        + binascii.b2a_base64(stream)
    )
    assert parsed.blobs["1"] == stream
    assert parsed.truncated == ["unpacked"]


def test_a_file_of_mapi_properties_has_its_long_name_and_type() -> None:
    def text(id: int, value: str) -> bytes:
        data = value.encode("utf-16-le") + b"\0\0"
        return struct.pack("<HHII", 0x1F, id, 1, len(data)) + data + b"\0" * (-len(data) % 4)

    props = struct.pack("<I", 3) + text(0x3707, "größe.txt") + text(0x370E, "text/plain") + text(0x3712, "cid@x")
    found = unpack_tnef(
        tnef(file_in_tnef("GROESS~1.TXT", b"12"), attribute(2, 0x00069005, props)), most=9, rtf_bytes=99
    )
    (one,) = found.files
    assert (one.name, one.type, one.cid, one.data) == ("größe.txt", "text/plain", "cid@x", b"12")


def test_compressed_rtf_refers_to_what_came_before() -> None:
    # [MS-OXRTFCP] 2.2.1: a literal, then references of 12 bits for where and 4 for how much, less 2, into the window.
    def compressed(size: int, body: bytes) -> bytes:
        return struct.pack("<IIII", len(body) + 12, size, 0x75465A4C, 0) + body

    start = 207  # the window begins after the text that everybody has
    again = struct.pack(">H", start << 4 | 6)
    assert decompress_rtf(compressed(12, bytes((0b10000,)) + b"abcd" + again), most=99) == b"abcdabcdabcd"
    assert decompress_rtf(compressed(6, bytes((0b1,)) + struct.pack(">H", 0 << 4 | 4)), most=99) == rb"{\rtf1"
    assert decompress_rtf(struct.pack("<IIII", 16, 5, 0x414C454D, 0) + b"hello!", most=99) == b"hello"
    assert decompress_rtf(compressed(500, b""), most=99) is None


@pytest.mark.fault("C04")
@pytest.mark.parametrize("line", [b"begin 644 x\n", b"begin 644 x\nend\n", b"=ybegin line=1 size=1 name=x\n"])
def test_a_hundred_thousand_beginnings_are_one_pass(line: bytes) -> None:
    # Quadratic, it would take minutes.
    assert unpack_text(line * 100_000 + b"end\n=yend size=1\n", most=10).files == []


@pytest.mark.fault("C07")
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400))
def test_broken_streams_end_where_they_break(junk: bytes, at: int) -> None:
    whole = tnef(file_in_tnef("a", b"abc"), attribute(1, 0x00069003, junk), attribute(2, 0x00069005, junk))
    broken = whole[:at] + junk + whole[at:]
    unpack_tnef(broken, most=5, rtf_bytes=1000)
    decompress_rtf(junk, most=1000)
    decompress_rtf(struct.pack("<IIII", 9, 900, 0x75465A4C, 0) + junk, most=1000)
    unpack_text(b"begin 644 x\n" + junk + b"\nend\n=ybegin line=1 size=1 name=x\n" + junk, most=5)
    part = b"From: a@b\nContent-Type: application/ms-tnef\n\n"
    check(part + broken)
