"""What a relay's connection must know: plain values, made by the composition root from settings."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from service.contract import Security
from service.login import LoginGate, TokenSource
from service.reach import ANYWHERE, Reach

# RFC 5321 4.5.3.2.6: wait 10 minutes for the reply to the final dot; giving up early sends the mail twice.
FINAL_REPLY_TIMEOUT_S: Final = 600.0
MAIL_TIMEOUT_S: Final = 300.0  # RFC 5321 4.5.3.2.2
RCPT_TIMEOUT_S: Final = 300.0  # RFC 5321 4.5.3.2.3
DATA_TIMEOUT_S: Final = 120.0  # RFC 5321 4.5.3.2.4
DATA_BLOCK_TIMEOUT_S: Final = 180.0  # RFC 5321 4.5.3.2.5
# One budget for DNS, TCP, TLS, greeting, EHLO and AUTH. RFC 5321 4.5.3.2.1 grants the greeting alone 5 minutes, for
# relays that accept a connection before they have room for it; a submission server that slow is as good as down.
CONNECT_TIMEOUT_S: Final = 60.0
# Enough to fill one relay's round trips, few enough for any provider and that memory stays at some mails.
CONNECTIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, by what is waited for."""

    connect_s: float = CONNECT_TIMEOUT_S
    mail_s: float = MAIL_TIMEOUT_S
    rcpt_s: float = RCPT_TIMEOUT_S
    data_s: float = DATA_TIMEOUT_S
    block_s: float = DATA_BLOCK_TIMEOUT_S
    final_s: float = FINAL_REPLY_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Extras:
    """What an envelope says beside its addresses, encoded: parameters of MAIL, and of RCPT by address.

    `raw`: the message is somebody's own bytes, and its header what he wants to say.
    """

    mail: Mapping[str, str | None] = field(default_factory=dict)
    rcpt: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    raw: bool = False


NO_EXTRAS: Final = Extras()


@dataclass(frozen=True, slots=True)
class SmtpOptions:
    """How to reach the relay of an account. `tls` None: the system's trust store, names verified.

    `tokens` stands instead of a password. `login_remedy`: what this provider wants, for whoever is refused.
    `connections`: at the most, at once.
    """

    account: str
    host: str
    port: int
    security: Security = Security.TLS
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    login: bool = True
    # RFC 2033: a mailbox server instead of a relay.
    lmtp: bool = False
    timeouts: Timeouts = Timeouts()
    tokens: TokenSource | None = None
    login_remedy: str = ""
    connections: int = CONNECTIONS
    reach: Reach = ANYWHERE
    gate: LoginGate = field(default_factory=LoginGate, repr=False, compare=False)

    @property
    def where(self) -> str:
        """As errors name it."""
        return f"{self.account}, {self.host}:{self.port}"
