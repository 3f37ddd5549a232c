"""What a delivery may fail with, beside the verdicts themselves, and what a relay wants before it takes anything."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from service.contract import without_credentials
from service.errors import AuthRefused, MailbusError, Permanent, Transient, Uncertain
from service.smtp.options import SmtpOptions
from service.smtp.wire import Reply

# RFC 4954 section 6 and RFC 3207 section 4: to any command, where a login or TLS must come first.
REQUIRED_FIRST: Final = 530
SERVICE_CLOSING: Final = 421  # RFC 5321 3.8: the connection ends with it
_ADDRESS: Final = re.compile(r"[^\s<>]+@[^\s<>]+")


class RelayUnreachable(Transient):
    """No connection to the relay came about: nothing was said of any message."""


class RelayFull(RelayUnreachable):
    """It is there, and takes no further connection just now (RFC 5321 3.1, RFC 4954 6)."""


class TurnedAway(MailbusError):
    """It waited for a connection, and none is to be had: nothing was said of the message, and nothing found out."""


class LoginWanted(AuthRefused):
    """Said to a mail: a login must come first."""


class TlsWanted(Permanent):
    """Said to a mail: TLS must come first."""


class ChunksUnknown(Transient):
    """The relay offered BDAT and does not know it. It has at most one byte of the message, which is no line."""


class DotUnanswered(Uncertain):
    """The final dot, or the last chunk, was sent and no reply to it was understood.

    `settled`: recipients that were refused before it, and by LMTP those whose own reply came.
    """

    def __init__(self, what: str, *, where: str, settled: Mapping[str, Reply]) -> None:
        super().__init__(what, where=where, remedy="the relay may or may not have the message")
        self.settled = dict(settled)


def wanted_first(replies: Iterable[Reply], options: SmtpOptions) -> Permanent | None:
    """What a relay wants that took nobody, if it says so. It is the account's affair, and no word about the mail."""
    said = next((reply for reply in replies if reply.code == REQUIRED_FIRST), None)
    if said is None:
        return None
    # It may repeat the envelope; logs and the page show what is said of the account.
    words = without_credentials(_ADDRESS.sub("***", str(said)), options.username or "", options.password or "")
    if "STARTTLS" in said.text.upper():
        return TlsWanted(f"the relay wants TLS: {words}", where=options.where, remedy="security: starttls")
    return LoginWanted(
        f"the relay wants a login: {words}",
        where=options.where,
        remedy=options.login_remedy or "login: true, with username and password",
    )
