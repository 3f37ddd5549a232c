"""What goes out with a mail so that what comes back names its request, and nobody else can make it. Pure.

The proof is the request's key, for one recipient's message his mark, and an HMAC of both. It is the Message-ID's local
part, the envelope's id (ENVID, RFC 3461 4.4), and in base32 a part of the reverse-path where settings want that (VERP):
the first comes back with the returned mail, the second in the report, the third is where the report is sent to.
"""

import binascii
import hashlib
import hmac
import re
from base64 import b32decode, b32encode
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

# request_key gives so many hex digits; as many of an HMAC are 128 bits.
KEY_CHARS: Final = 32
TAG_CHARS: Final = 32
# Of the SHA-256 of a recipient's address: enough to tell those of one request apart.
MARK_CHARS: Final = 16
# RFC 5321 4.5.3.1.1: a local part has at most 64 octets, so an address has 80 bits of the HMAC.
_SHORT_TAG_CHARS: Final = 20
# 26 bytes in base32, 34 with a mark.
TOKEN_CHARS: Final = 55
_TOKEN: Final = re.compile(r"(?<![a-z2-7])(?:[a-z2-7]{55}|[a-z2-7]{42})(?![a-z2-7])", re.IGNORECASE)
# Addresses of a report that are looked at; it has one.
_ADDRESSES: Final = 20
# Of SHA-256.
_BLOCK_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Known:
    """What a proof says: the request's key, and what names the recipient where each got a message of his own."""

    key: str
    mark: str

    def is_of(self, recipient: str) -> bool:
        """Whether it proves that this recipient is meant."""
        return bool(self.mark) and self.mark == mark_of(recipient)


# Once for the Message-ID, once for the envelope of each mail.
@lru_cache(maxsize=256)
def tag_of(key: str, secret: bytes) -> str:
    """What proves that a key is ours: an HMAC (RFC 2104). OpenSSL's own takes several times as long for so little."""
    inner, outer = (begun.copy() for begun in _begun(secret))
    inner.update(key.encode())
    outer.update(inner.digest())
    return outer.hexdigest()[:TAG_CHARS]


@lru_cache(maxsize=8)
def _begun(secret: bytes) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """The two hashes of an HMAC, which have read the secret."""
    block = hashlib.sha256(secret).digest() if len(secret) > _BLOCK_BYTES else secret
    block = block.ljust(_BLOCK_BYTES, b"\0")
    inner, outer = (bytes([byte ^ pad for byte in block]) for pad in (0x36, 0x5C))
    return hashlib.sha256(inner), hashlib.sha256(outer)


def mark_of(recipient: str) -> str:
    """What of a proof names the recipient of a message."""
    return hashlib.sha256(recipient.encode("utf-8", "surrogatepass")).hexdigest()[:MARK_CHARS]


def proof_of(said: str, secret: bytes) -> str:
    """`said`: a key, with or without a mark."""
    return f"{said}{tag_of(said, secret)}"


def known_of(proof: str, secret: bytes) -> Known | None:
    """What a Message-ID or an envelope's id of ours says; None for any other."""
    local = proof.partition("@")[0]
    if not local.isascii():
        return None
    cut = KEY_CHARS + (MARK_CHARS if len(local) > KEY_CHARS + TAG_CHARS else 0)
    said, tag = local[:cut], local[cut:]
    return Known(said[:KEY_CHARS], said[KEY_CHARS:]) if hmac.compare_digest(tag, tag_of(said, secret)) else None


def verp_address(template: str, proof: str) -> str:
    """The reverse-path of a mail: `template` with the proof where it has `{}`."""
    short = proof[: len(proof) - TAG_CHARS + _SHORT_TAG_CHARS]
    return template.replace("{}", b32encode(bytes.fromhex(short)).decode().rstrip("=").lower())


def known_by_address(addresses: Iterable[str], secret: bytes) -> Known | None:
    """What the first of these that is a reverse-path of ours says."""
    for _, address in zip(range(_ADDRESSES), addresses, strict=False):
        for token in _TOKEN.findall(address[:1000]):
            try:
                short = b32decode(token.upper() + "=" * (-len(token) % 8)).hex()
            except (binascii.Error, ValueError):
                continue
            said, tag = short[:-_SHORT_TAG_CHARS], short[-_SHORT_TAG_CHARS:]
            if hmac.compare_digest(tag, tag_of(said, secret)[:_SHORT_TAG_CHARS]):
                return Known(said[:KEY_CHARS], said[KEY_CHARS:])
    return None
