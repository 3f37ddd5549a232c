"""A service account's key file → what signs for it: Google's JSON, or a key in PEM. Used by the composition root."""

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from service.errors import Permanent

# 10 MB of memory and 60 ms, which only accounts with a service account need: imported where it is used.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

FILE_LIMIT_BYTES: Final = 64 * 1024
REMEDY: Final = "name the JSON file that Google gives for a service account's key, or an RSA key in PEM"


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """An RSA key, its id, and what Google's file says beside it (empty where it is a key alone)."""

    rsa: "RSAPrivateKey" = field(repr=False)
    id: str = ""
    client_id: str = ""
    token_url: str = ""

    def sign(self, message: bytes) -> bytes:
        """RS256 (RFC 7518 3.3)."""
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.hashes import SHA256

        return self.rsa.sign(message, padding.PKCS1v15(), SHA256())


@lru_cache(16_384)
def read_key(path: str, content: bytes) -> ServiceKey:
    """What a key's file holds. Raises Permanent, and shows nothing of it.

    Looking whether an RSA key holds takes 40 ms: once for all accounts that name it.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    content = content[:FILE_LIMIT_BYTES]
    said: dict[str, object] = {}
    pem = content
    if content.lstrip()[:1] == b"{":
        try:
            said = json.loads(content)
        except ValueError:
            raise Permanent("the key's file is no JSON", where=path, remedy=REMEDY) from None
        pem = str(said.get("private_key", "")).encode()
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without its cause, which may show the key.
        raise Permanent("no key in the file, or one with a passphrase", where=path, remedy=REMEDY) from None
    if not isinstance(key, RSAPrivateKey):
        raise Permanent("the key is no RSA key", where=path, remedy=REMEDY)
    texts = {name: value for name, value in said.items() if isinstance(value, str)}
    return ServiceKey(key, texts.get("private_key_id", ""), texts.get("client_email", ""), texts.get("token_uri", ""))
