"""Signatures, verified by dkimpy, which knows nothing of us."""

import base64
from contextlib import suppress
from datetime import UTC, datetime

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from dkim.canonicalization import Relaxed
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bus import Bus
from service.outbound.dkim import DkimSigner, read_dkim_key, relaxed_body
from tests.outbound.conftest import Post, sending
from tests.servers.smtp import ScriptedRelay

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def pem(key: PrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


SIGNERS = {
    "rsa": DkimSigner("example.com", "r1", read_dkim_key(pem(RSA))),
    "ed25519": DkimSigner("example.com", "e1", read_dkim_key(pem(ED25519))),
}


def dns(name: bytes, **_: object) -> bytes:
    """What the domain publishes."""
    if name.startswith(b"r1."):
        public = RSA.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    raw = ED25519.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(raw)


def verified(message: bytes, index: int = 0) -> bool:
    return bool(dkim.DKIM(message).verify(idx=index, dnsfunc=dns))


def signed(kind: str, message: bytes) -> bytes:
    return SIGNERS[kind].signature(message, AT) + message


HEADER = (
    b"Date: Tue, 24 Nov 2026 12:00:00 +0000\r\nFrom: Me <me@example.com>\r\nTo: a@x.example,\r\n\tb@x.example\r\n"
    b"Subject:   many   blanks \r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\n"
)
MESSAGES = [
    HEADER + b"\r\nhello\r\n",
    HEADER + b"\r\n",
    HEADER + b"\r\n\r\n\r\n",
    HEADER + b"\r\na  b\t c \t\r\n\r\n \r\nlast\r\n\r\n\r\n",
    HEADER + b"Received: one\r\nReceived: two\r\nCc: c@x.example\r\nCc: d@x.example\r\n\r\nx\r\n",
    HEADER + b"List-Unsubscribe: <https://x>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\nx",
]


@pytest.mark.parametrize("kind", SIGNERS)
@pytest.mark.parametrize("message", MESSAGES)
def test_another_implementation_verifies_it(kind: str, message: bytes) -> None:
    whole = signed(kind, message)
    assert verified(whole)
    assert signed(kind, message) == whole
    assert max(map(len, whole.split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"hello", b"hallo"),
        (b"me@example.com>", b"you@example.com>"),
        (b"Subject:", b"Subject: two\r\nSubject:"),
        (b"MIME-Version", b"From: another@x.example\r\nMIME-Version"),
        (b"MIME-Version", b"Reply-To: another@x.example\r\nMIME-Version"),
    ],
)
def test_what_is_changed_or_added_breaks_it(old: bytes, new: bytes) -> None:
    whole = signed("rsa", MESSAGES[0]).replace(old, new, 1)
    with suppress(dkim.ValidationError):  # dkimpy's word for a body of another hash
        assert not verified(whole)


@pytest.mark.parametrize(
    ("old", "new"), [(b"many   blanks ", b"many blanks"), (b"a@x.example,\r\n\t", b"a@x.example,\r\n   ")]
)
def test_what_servers_change_on_the_way_does_not(old: bytes, new: bytes) -> None:
    assert verified(signed("rsa", MESSAGES[0]).replace(old, new, 1))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("a \t.", max_size=6), max_size=8))
def test_any_body_is_canonical_as_the_other_has_it(lines: list[str]) -> None:
    body = "\r\n".join(lines).encode()
    whole = body + b"\r\n" if body and not body.endswith(b"\r\n") else body
    assert relaxed_body(body) == Relaxed.canonicalize_body(whole)


@pytest.mark.parametrize(
    "key", [pem(ec.generate_private_key(ec.SECP256R1())), pem(rsa.generate_private_key(65537, 1024))[:200], "", "x"]
)
def test_what_is_no_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="key") as refused:
        read_dkim_key(key)
    assert "BEGIN" not in str(refused.value)


async def test_a_mail_has_all_its_accounts_signatures_the_same_on_every_attempt(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay, dkim=tuple(SIGNERS.values())):
        await post.request("r", subject="Grüße", text="Hallo, Jürgen  \n\n", html="<p>Hallo</p>")
        await post.states(2)
        await post.empty()
    first, second = (mail.content for mail in relay.messages)
    assert first == second
    assert first.count(b"DKIM-Signature:") == 2
    assert verified(first, 0)
    assert verified(first, 1)
