"""What holds other files stays one attachment, byte for byte: nothing is expanded, whatever it claims to hold."""

import binascii
import gzip
import io
import zipfile
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from service.contract import encode
from service.mime import Parsed
from tests.mime.invariants import check
from tests.mime.mails import attached, read, texts

pytestmark = pytest.mark.fault("C07")

SECRET = b"within: never to be seen outside of its archive"


def mail_with(content: bytes, kind: str, name: str) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["Subject"] = "a file"
    message.set_content("see the file")
    maintype, _, subtype = kind.partition("/")
    message.add_attachment(content, maintype=maintype, subtype=subtype, filename=name)
    return message.as_bytes()


def zipped(files: dict[str, bytes]) -> bytes:
    """The same bytes at any time: tests are named after them, and all workers must find the same tests."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return found.getvalue()


def bomb() -> bytes:
    """As 42.zip is made: archives of archives; 16 x 16 x 16 MiB in some 20 KB."""
    inner = zipped({"zeros": bytes(16 * 1024 * 1024)})
    middle = zipped({f"{n}.zip": inner for n in range(16)})
    return zipped({f"{n}.zip": middle for n in range(16)})


def stays_as_it_is(parsed: Parsed, content: bytes, name: str) -> None:
    """The mail's text and this one attachment, and nothing of what is in it."""
    assert attached(parsed) == [name]
    assert list(parsed.blobs.values()) == [content]
    assert parsed.email.attachments[0].size == len(content)
    assert [text.strip() for text in texts(parsed)] == ["see the file"]
    assert parsed.problem is None
    assert parsed.whole
    assert SECRET not in encode(parsed.email)


@pytest.mark.parametrize(
    ("content", "kind", "name"),
    [
        (bomb(), "application/zip", "bomb.zip"),
        (zipped({"../../etc/passwd": SECRET, "a.txt": SECRET}), "application/zip", "evil.zip"),
        (gzip.compress(bytes(16 * 1024 * 1024)), "application/gzip", "zeros.gz"),
    ],
    ids=["zip bomb", "zip with paths", "gzip bomb"],
)
def test_an_archive_is_one_attachment_byte_for_byte(content: bytes, kind: str, name: str) -> None:
    raw = mail_with(content, kind, name)
    parsed = read(raw)
    stays_as_it_is(parsed, content, name)
    # However much it says it holds: what is kept of a mail is never more than the mail.
    assert sum(map(len, parsed.blobs.values())) + len(encode(parsed.email)) < 2 * len(raw) + 10_000
    check(raw)


@pytest.fixture(scope="module")
def identity() -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a@example.org")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()), key


Identity = tuple[x509.Certificate, rsa.RSAPrivateKey]
HEADER = b"From: a@example.org\r\nSubject: secure\r\n"
WITHIN = b"Content-Type: text/plain\r\n\r\n" + SECRET + b"\r\n"


def test_an_opaque_signature_stays_an_attachment(identity: Identity) -> None:
    certificate, key = identity
    builder = pkcs7.PKCS7SignatureBuilder().set_data(WITHIN).add_signer(certificate, key, hashes.SHA256())
    signed = builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
    assert SECRET in signed
    header = b'Content-Type: application/pkcs7-mime; smime-type=signed-data; name="smime.p7m"\r\n'
    raw = HEADER + header + b"Content-Transfer-Encoding: base64\r\n\r\n" + binascii.b2a_base64(signed)
    parsed = read(raw)
    assert attached(parsed) == ["smime.p7m"]
    assert list(parsed.blobs.values()) == [signed]
    assert (texts(parsed), parsed.problem) == ([], None)
    assert SECRET not in encode(parsed.email)
    check(raw)


def test_a_detached_signature_stays_an_attachment_beside_its_text(identity: Identity) -> None:
    certificate, key = identity
    builder = pkcs7.PKCS7SignatureBuilder().set_data(WITHIN).add_signer(certificate, key, hashes.SHA256())
    raw = HEADER + builder.sign(serialization.Encoding.SMIME, [pkcs7.PKCS7Options.DetachedSignature])
    parsed = read(raw)
    assert parsed.problem is None
    assert [text.strip() for text in texts(parsed)] == [SECRET.decode()]
    assert attached(parsed) == ["smime.p7s"]
    assert next(iter(parsed.blobs.values()))[:1] == b"\x30"
    check(raw)


def test_an_encrypted_mail_is_kept_whole_and_said_to_be_encrypted(identity: Identity) -> None:
    certificate, _ = identity
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(WITHIN).add_recipient(certificate)
    sealed = builder.encrypt(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
    header = b'Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name="smime.p7m"\r\n'
    raw = HEADER + header + b"Content-Transfer-Encoding: base64\r\n\r\n" + binascii.b2a_base64(sealed)
    parsed = read(raw)
    assert attached(parsed) == ["smime.p7m"]
    assert list(parsed.blobs.values()) == [sealed]
    assert parsed.problem is not None
    assert parsed.problem.type == "encrypted"
    check(raw)
