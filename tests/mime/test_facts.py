"""What is known of an attachment beside what the mail says: its type by content, a safe name, whether it is locked."""

import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from service.contract import FileFacts
from service.mime.archives import is_encrypted
from service.mime.facts import facts
from service.mime.kinds import is_other, type_of
from service.mime.names import safe_name
from tests.mime.mails import email_of
from tests.mime.test_archives import mail_with, zipped

OFFICE = "application/vnd.openxmlformats-officedocument."


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7\n", "application/pdf"),
        (b"MZ\x90\0", "application/vnd.microsoft.portable-executable"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\0\0\0\x18ftypheic", "image/heic"),
        (b"\0\0\0\x18ftypisom", "video/mp4"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"\n <!DOCTYPE html>", "text/html"),
        (b"hello", "application/octet-stream"),
        (b"", "application/octet-stream"),
        (zipped({"a.txt": b"a"}), "application/zip"),
        (zipped({"[Content_Types].xml": b"a", "word/document.xml": b"b"}), f"{OFFICE}wordprocessingml.document"),
        (zipped({"xl/workbook.xml": b"b"}), f"{OFFICE}spreadsheetml.sheet"),
        (zipped({"META-INF/MANIFEST.MF": b""}), "application/java-archive"),
    ],
)
def test_a_file_is_what_it_holds(data: bytes, kind: str) -> None:
    assert type_of(data) == kind


def test_a_document_of_odf_says_what_it_is() -> None:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.text")
    assert type_of(found.getvalue()).startswith("application/vnd.oasis.opendocument.text")


@pytest.mark.parametrize(
    ("declared", "found", "other"),
    [
        ("application/pdf", "application/vnd.microsoft.portable-executable", True),
        ("image/png", "image/jpeg", True),
        ("application/octet-stream", "application/pdf", True),
        ("application/pdf", "text/html", True),
        ("image/jpg", "image/jpeg", False),
        ("application/x-zip-compressed", "application/zip", False),
        ("application/vnd.android.package-archive", "application/zip", False),
        ("application/vnd.ms-excel", "application/x-ole-storage", False),
        ("application/vnd.ms-word.document.macroenabled.12", f"{OFFICE}wordprocessingml.document", False),
        ("text/plain", "application/octet-stream", False),
        ("text/html", "text/html", False),
    ],
)
def test_another_name_of_the_same_is_no_difference(declared: str, found: str, other: bool) -> None:
    assert is_other(declared, found) is other


def locked_zip() -> bytes:
    """As an archive with a password has it: bit 0 of the flags, locally and in the directory."""
    data = bytearray(zipped({"a.txt": b"secret"}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def rar5(*headers: bytes) -> bytes:
    blocks = (b"\0\0\0\0" + bytes((len(header),)) + header for header in headers)
    return b"Rar!\x1a\x07\x01\0" + b"".join(blocks)


def rar4(kind: int, flags: int) -> bytes:
    return b"Rar!\x1a\x07\0" + struct.pack("<HBHHI", 0, kind, flags, 11, 0)


def seven(header: bytes) -> bytes:
    return b"7z\xbc\xaf\x27\x1c\0\x04" + struct.pack("<IQQI", 0, 0, len(header), 0) + header


# Type 2 is a file; flag 1: an extra area of 3 bytes, whose record has 2 bytes and type 1.
RAR5_LOCKED_FILE = bytes((2, 1, 3, 2, 1, 0))


@pytest.mark.parametrize(
    ("data", "locked"),
    [
        (zipped({"a": b"a"}), False),
        (b"MZ stub" + zipped({"a": b"a"}), None),
        (locked_zip(), True),
        (locked_zip()[:40], None),
        (rar5(bytes((1, 0)), bytes((2, 0))), False),
        (rar5(bytes((4, 0))), True),
        (rar5(bytes((1, 0)), RAR5_LOCKED_FILE), True),
        (rar4(0x73, 0), False),
        (rar4(0x73, 0x80), True),
        (rar4(0x74, 0x04), True),
        (seven(b"\x01\x04"), False),
        (seven(b"\x17\x06\xf1\x07\x01"), True),
        (seven(b"\x17\x06"), None),
        (b"%PDF-1.7\ntrailer <</Encrypt 5 0 R>>", True),
        (b"%PDF-1.7\ntrailer <<>>", None),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), True),
        (b"hello", None),
    ],
)
def test_what_needs_a_password_is_told(data: bytes, locked: bool | None) -> None:
    assert is_encrypted(data, type_of(data)) is locked


@pytest.mark.fault("C01")
@given(st.sampled_from([b"PK\x03\x04", b"Rar!\x1a\x07\0", b"Rar!\x1a\x07\x01\0", b"7z\xbc\xaf\x27\x1c"]), st.binary())
def test_any_archive_has_an_answer(start: bytes, rest: bytes) -> None:
    is_encrypted(start + rest, type_of(start + rest))


@pytest.mark.fault("C09")
@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("bill (2).pdf", "bill (2).pdf"),
        ("Größe.pdf", "Größe.pdf"),
        ("../../etc/passwd", "passwd"),
        (r"C:\temp\a.exe", "a.exe"),
        ("invoice\u202efdp.exe", "invoice_fdp.exe"),
        ("a\r\nb.txt", "a_b.txt"),
        ("con.txt", "_con.txt"),
        ("CON .txt", "_CON .txt"),
        ("conout$", "_conout$"),
        ("bill\u00ad.exe", "bill_.exe"),
        ("..", "file"),
        (". .pdf. ", "pdf"),
        ("a:b|c.txt", "a_b_c.txt"),
        ("x" * 300 + ".pdf", "x" * 196 + ".pdf"),
        ("", "file"),
    ],
)
def test_a_name_is_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text())
def test_a_safe_name_is_a_name_and_stays_as_it_is(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert safe not in (".", "..")
    assert not set(safe) & set("/\\\0\r\n")
    assert len(safe.encode()) <= 204
    assert safe_name(safe) == safe


def test_an_event_says_what_the_mail_does_not() -> None:
    email = email_of(mail_with(b"MZ\x90\0", "application/pdf", "../bill.pdf"))
    (part,) = email.attachments
    kind = "application/vnd.microsoft.portable-executable"
    assert email.mailbus.files == [FileFacts(part.part_id or "", type=kind, name="bill.pdf")]
    assert (part.type, part.name) == ("application/pdf", "../bill.pdf")


def test_of_a_file_that_is_what_it_seems_nothing_is_said() -> None:
    assert email_of(mail_with(b"%PDF-1.7", "application/pdf", "bill.pdf")).mailbus.files is UNSET


def test_of_an_archive_it_is_said_whether_it_is_open() -> None:
    for data, locked in ((zipped({"a": b"a"}), False), (locked_zip(), True)):
        (found,) = email_of(mail_with(data, "application/zip", "a.zip")).mailbus.files or []
        assert found.encrypted is locked


def test_a_file_whose_bytes_are_not_at_hand_is_passed_over() -> None:
    email = email_of(mail_with(b"MZ", "application/pdf", "bill.pdf"))
    assert facts(email.attachments, {}) == []
