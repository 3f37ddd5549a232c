"""A signature outlives us: what is kept of a mail is what came, to the last byte. RFC 6376."""

import base64

import dkim  # type: ignore[import-untyped]  # has no types
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.mime.mails import read

MAIL = (
    "From: a@example.org\r\nSubject:   two  spaces \r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    "Größe mit Leerzeichen am Ende   \r\n\t\r\n.\r\n\r\nzu viele Zeilen\r\n\r\n\r\n"
).encode()


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signed(key: rsa.RSAPrivateKey, mail: bytes) -> bytes:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    signature = dkim.sign(
        mail, b"s1", b"example.org", pem, canonicalize=(b"simple", b"simple"), include_headers=[b"from", b"subject"]
    )
    return bytes(signature) + mail


def verifies(key: rsa.RSAPrivateKey, mail: bytes) -> bool:
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    return bool(dkim.verify(mail, dnsfunc=lambda *_args, **_more: record))


@pytest.mark.fault("C10")
def test_a_signed_mail_still_verifies_after_parsing(key: rsa.RSAPrivateKey) -> None:
    raw = signed(key, MAIL)
    before = bytes(bytearray(raw))
    parsed = read(raw)
    assert raw == before
    assert verifies(key, raw)
    assert parsed.email.size == len(raw)
    assert parsed.email.headers[0].name == "DKIM-Signature"


@pytest.mark.fault("C10")
def test_a_signed_mail_within_another_comes_out_as_it_went_in(key: rsa.RSAPrivateKey) -> None:
    inner = signed(key, MAIL)
    raw = (
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nfyi\r\n'
        b"--b\r\nContent-Type: message/rfc822\r\n\r\n" + inner + b"\r\n--b--\r\n"
    )
    blob = read(raw).blobs["2"]
    assert blob == inner
    assert verifies(key, blob)


@pytest.mark.fault("C10")
@pytest.mark.parametrize("content", [b"a\nb\r\nc\rd", b"trailing  \r\n\t\r\n", b"\xff\xfe\0\x80", b"\r\n\r\n", b"."])
def test_bytes_of_an_attachment_are_not_repaired(content: bytes) -> None:
    raw = (
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: application/octet-stream\r\n'
        b"Content-Transfer-Encoding: binary\r\n\r\n" + content + b"\r\n--b--\r\n"
    )
    assert read(raw).blobs == {"1": content}
