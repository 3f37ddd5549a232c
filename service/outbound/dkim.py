"""A mail → its DKIM signature, a header field. Deterministic: the same mail gives the same signature.

Used by mail.py; keys come from settings. RFC 6376 (relaxed/relaxed), RFC 8301 (rsa-sha256 alone), RFC 8463
(ed25519-sha256). What a filter may demand is signed: RFC 8058 section 4 wants both fields of one-click unsubscription.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

# RFC 6376 5.4.1, and what else says something to the reader. Where one is absent nobody may add it: those of the
# first list are named once more than they occur (RFC 6376 8.15).
_ONCE_MORE: Final = ("from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id")
_IF_THERE: Final = (
    "in-reply-to", "references", "mime-version", "content-type", "content-transfer-encoding",
    "list-id", "list-unsubscribe", "list-unsubscribe-post", "auto-submitted",
)  # fmt: skip
RSA_BITS_LEAST: Final = 1024  # RFC 8301 3.2; shorter ones are not verified
FOLD_CHARS: Final = 72
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\r\n]|\r\n[ \t])*)\r\n")
_BLANKS: Final = re.compile(rb"[ \t]+")

Sign = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A private key and the algorithm's name that goes with it."""

    algorithm: str
    sign: Sign = field(repr=False)


@dataclass(frozen=True, slots=True)
class DkimSigner:
    """Who signs: `<selector>._domainkey.<domain>` has the public key in the DNS."""

    domain: str
    selector: str
    key: DkimKey

    def signature(self, message: bytes, at: datetime) -> bytes:
        """The field that goes in front of a message of CRLF lines."""
        header, _, body = message.partition(b"\r\n\r\n")
        fields = [(found[1].lower(), _relaxed(found[2])) for found in _FIELD.finditer(header + b"\r\n")]
        names: list[str] = []
        chosen: list[bytes] = []
        for name in (*_ONCE_MORE, *_IF_THERE):
            # RFC 6376 5.4.2: of fields that occur more than once, from the last one up.
            values = [value for key, value in reversed(fields) if key == name.encode()]
            chosen += [b"%b:%b\r\n" % (name.encode(), value) for value in values]
            names += [name] * (len(values) + (name in _ONCE_MORE))
        digest = base64.b64encode(hashlib.sha256(relaxed_body(body)).digest()).decode()
        tags = (
            f"v=1; a={self.key.algorithm}; c=relaxed/relaxed; d={self.domain};\r\n"
            f" s={self.selector}; t={int(at.timestamp())};\r\n"
            f" h={_folded(':'.join(names), ':')};\r\n bh={digest};\r\n b="
        )
        own = b"dkim-signature:" + _relaxed(tags.encode())
        signature = base64.b64encode(self.key.sign(b"".join(chosen) + own)).decode()
        return f"DKIM-Signature: {tags}{_folded(signature)}\r\n".encode()


def relaxed_body(body: bytes) -> bytes:
    """RFC 6376 3.4.4: runs of blanks are one space, none at a line's end, no empty lines at the end of all."""
    if b"\t" in body or b"  " in body:
        body = _BLANKS.sub(b" ", body)
    body = body.replace(b" \r\n", b"\r\n")
    if len(body) > 2 and body.endswith(b"\r\n") and not body.endswith((b"\r\n\r\n", b" \r\n")):
        return body  # as it is: two copies of a large one fewer
    body = body.rstrip(b"\r\n ")
    return body + b"\r\n" if body else b""


def _relaxed(value: bytes) -> bytes:
    """RFC 6376 3.4.2: unfolded, runs of blanks are one space, none at either end."""
    return _BLANKS.sub(b" ", value.replace(b"\r\n", b"")).strip(b" \t")


def _folded(text: str, at: str = "") -> str:
    """Lines short enough; with `at` they end after it."""
    lines: list[str] = []
    while len(text) > FOLD_CHARS:
        cut = text.rfind(at, 0, FOLD_CHARS) + 1 if at else FOLD_CHARS
        lines.append(text[:cut])
        text = text[cut:]
    return "\r\n ".join([*lines, text])


def read_dkim_key(pem: str) -> DkimKey:
    """An RSA or Ed25519 key in PEM. Raises ValueError, which shows nothing of it."""
    # 10 MB of memory and 60 ms, which only accounts that sign need.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("no private key in PEM, or one under a password") from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < RSA_BITS_LEAST:
            raise ValueError(f"an RSA key of {key.key_size} bits; {RSA_BITS_LEAST} at least, 2048 are usual")
        return DkimKey("rsa-sha256", lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256()))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        # RFC 8463 section 3: it is the hash that is signed.
        return DkimKey("ed25519-sha256", lambda data: key.sign(hashlib.sha256(data).digest()))
    raise ValueError("neither an RSA nor an Ed25519 key")
