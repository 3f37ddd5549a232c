"""What an account's tokens are got with: plain values, made by the composition root from settings."""

import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from service.oauth.key import ServiceKey
from service.reach import ANYWHERE, Reach

# One budget for DNS, TCP, TLS and the answer.
ASK_TIMEOUT_S: Final = 20.0
LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})


def is_endpoint(url: str) -> bool:
    """Whether tokens may be asked for there: secrets go to it.

    RFC 6749 section 3.2 wants TLS; what goes from this machine to itself crosses no network.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    protected = parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK)
    return host is not None and protected and "@" not in parts.netloc and not parts.fragment and port != 0


class Grant(StrEnum):
    """By what right a token is asked for."""

    REFRESH_TOKEN = "refresh_token"  # RFC 6749 6
    CLIENT_CREDENTIALS = "client_credentials"  # RFC 6749 4.4
    JWT_BEARER = "jwt_bearer"  # RFC 7523 2.1


@dataclass(frozen=True, slots=True)
class OAuthOptions:
    """`refresh_file`: where `refresh_token` was read and a new one is kept. `remedy`: what else a refusal may need."""

    account: str
    grant: Grant
    token_url: str
    tls: ssl.SSLContext
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    refresh_file: Path | None = None
    key: ServiceKey | None = None
    subject: str = ""
    scope: str = ""
    remedy: str = ""
    timeout_s: float = ASK_TIMEOUT_S
    reach: Reach = ANYWHERE

    @property
    def where(self) -> str:
        """As errors name it."""
        return f"{self.account}, {urlsplit(self.token_url).hostname}"
