"""Words that settings, IMAP and SMTP share about a connection."""

from enum import StrEnum


class Security(StrEnum):
    """How a connection is protected (RFC 8314). `none` only where it is written out."""

    TLS = "tls"
    STARTTLS = "starttls"
    NONE = "none"
