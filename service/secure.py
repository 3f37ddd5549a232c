"""What settings say of authorities → a TLS context that verifies. Used by the composition root."""

import ssl
from functools import lru_cache
from typing import Final

from service.contract import Security
from service.errors import Permanent
from service.settings import NamedFile

# OpenSSL's own form, certificates with words about whom to trust for what.
TRUSTED: Final = b"-----BEGIN TRUSTED CERTIFICATE-----"
TRUSTED_REMEDY: Final = "TRUSTED CERTIFICATE is OpenSSL's own: write it anew by `openssl x509 -in FILE`"
# A context with the system's authorities takes 30 ms and 1 MB: thousands of accounts share one. A file with another
# content is another key.
CONTEXTS_LIMIT: Final = 256


@lru_cache(CONTEXTS_LIMIT)
def client_context(ca: NamedFile | None) -> ssl.SSLContext:
    """Certificates are verified, by the system's authorities or those in a file. RFC 8314 4.1: TLS 1.2.

    Raises Permanent where the file has none.
    """
    authorities = None
    if ca is not None:
        # Certificates are ASCII, and what people write between them need not be. Nothing would mean the system's.
        authorities = ca.content.decode("ascii", "ignore") or "nothing"
    try:
        context = ssl.create_default_context(cadata=authorities)
    except (ssl.SSLError, OSError) as exc:
        remedy = TRUSTED_REMEDY if ca is not None and TRUSTED in ca.content else "name a file in PEM"
        raise Permanent(f"no certificates can be read from {ca}", where="ca", remedy=remedy) from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def tls_context(security: Security, ca: NamedFile | None) -> ssl.SSLContext | None:
    """How a connection is secured; None where it is not. Raises Permanent where the authorities' file is none."""
    return None if security is Security.NONE else client_context(ca)
