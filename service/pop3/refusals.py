"""What a POP3 server says when it refuses → a verdict. Pure but for its words.

Used by session.py. RFC 2449 8 (IN-USE, LOGIN-DELAY) and RFC 3206 (SYS/TEMP, SYS/PERM, AUTH); the words are those of
servers that give no code. Rules for a bare `-ERR` to a login, the first that fits: a maildrop that is locked; words
that say "later"; a server with AUTH-RESP-CODE, which would have said [AUTH] of a wrong password; words that are about
credentials; else it is not known, and is tried again as slowly as a wrong password would be.
"""

import re
from typing import Final

from service.contract import hidden, without_credentials
from service.errors import AuthRefused, MailbusError, Permanent, Transient
from service.login import LOGIN_PAUSE_S
from service.pop3.wire import Status

SHOWN_CHARS: Final = 200
# Where the server does not say how long (RFC 2449 6.5 gives the seconds only as a capability).
NOT_NOW_S: Final = 30.0
_LOCKED_WORDS: Final = re.compile(
    r"lock(ed)?\b|in use|already (open|connected|logged)|another (session|pop)|mailbox (is )?busy|being accessed",
    re.IGNORECASE,
)
_LATER_WORDS: Final = re.compile(
    r"too many|temporar|try again|try later|unavailable|internal (server )?error|time(d )?out|\brate\b|busy|exceeded"
    r"|overload|shutting down|too (often|frequent|soon)|system (error|problem)|not connected",
    re.IGNORECASE,
)
_CREDENTIAL_WORDS: Final = re.compile(
    r"password|passwd|credential|authenticat|authoriz|authoris|invalid (login|user)|unknown user|no such"
    r"|(login|logon|access|permission)s? .{0,20}(fail|denied|incorrect|refused|invalid|disallow)"
    r"|(fail|denied|bad|incorrect|invalid|refus)\w* .{0,20}(login|logon|user|access)|username",
    re.IGNORECASE,
)
_PASSWORD_REMEDY: Final = "check `username` and `password`; providers such as Gmail want an app password or OAuth"
TLS_REMEDY: Final = "set `security: tls` and its port, usually 995"


class NotNow(Transient):
    """The maildrop is locked by another session, or was opened too short a time ago: nobody has to do anything."""


def said_of(status: Status, username: str = "", password: str = "") -> str:
    """What a server said, without the credentials that it may repeat."""
    text = without_credentials(status.text, username, password)[:SHOWN_CHARS]
    return f"[{status.code}] {text}" if status.code else text


def refused_login(
    status: Status,
    *,
    where: str,
    username: str,
    password: str,
    coded: bool,
    sent: str = "",
    detail: str = "",
    remedy: str = "",
) -> MailbusError:
    """PASS, APOP or AUTH was answered -ERR.

    coded: the server has AUTH-RESP-CODE; password: or the token; sent: what was said with it; detail: what the server
    said before its answer; remedy: what this provider wants.
    """
    said = hidden(said_of(status, username, password), [sent]) + (f" ({detail})" if detail else "")
    refused = AuthRefused(f"the server refused the login: {said}", where=where, remedy=remedy or _PASSWORD_REMEDY)
    if status.code == "AUTH":
        return refused
    if (coded_verdict := _by_code(status, said, where)) is not None:
        return coded_verdict
    if _LOCKED_WORDS.search(status.text):
        return _not_now(said, where)
    if coded or _LATER_WORDS.search(status.text):
        return Transient(f"the server lets nobody in now: {said}", where=where)
    if detail or _CREDENTIAL_WORDS.search(status.text):
        return refused
    return Transient(
        f"the server refused the login and does not say why: {said}",
        where=where,
        remedy=remedy or _PASSWORD_REMEDY,
        retry_after_s=LOGIN_PAUSE_S,
    )


def _by_code(status: Status, said: str, where: str) -> MailbusError | None:
    match status.code:
        case "IN-USE" | "LOGIN-DELAY":
            return _not_now(said, where)
        case "SYS/TEMP":
            return Transient(f"the server lets nobody in now: {said}", where=where)
        case "SYS/PERM":
            return Permanent(
                f"the maildrop cannot be opened: {said}", where=where, remedy="ask whoever runs the mail server"
            )
        case _:
            return None


def _not_now(said: str, where: str) -> NotNow:
    return NotNow(
        f"the maildrop is not to be had now: {said}",
        where=where,
        remedy="it is tried again; if it lasts, another program holds the maildrop open",
        retry_after_s=NOT_NOW_S,
    )


def refused_command(name: str, status: Status, *, where: str) -> MailbusError:
    """Any other command was answered -ERR."""
    said = said_of(status)
    verdict = _by_code(status, said, where)
    return verdict or Transient(f"{name} was answered -ERR: {said}", where=where)


def refused_greeting(status: Status, *, where: str) -> MailbusError:
    """The server's first line is -ERR: it serves nobody now, or nobody from here."""
    said = said_of(status)
    return _by_code(status, said, where) or Transient(f"the server is not available: {said}", where=where)


def refused_tls(status: Status, *, where: str) -> MailbusError:
    """STLS was answered -ERR: nothing goes in the clear instead (RFC 2595 2.4)."""
    said = said_of(status)
    if status.code == "SYS/TEMP" or _LATER_WORDS.search(status.text):
        return Transient(f"no STLS now: {said}", where=where)
    return Permanent(f"the server refuses STLS: {said}", where=where, remedy=TLS_REMEDY)


def no_tls(*, where: str) -> Permanent:
    """The server offers no STLS."""
    return Permanent("the server offers no STLS here: nothing is sent in the clear", where=where, remedy=TLS_REMEDY)


def no_clear_password(*, where: str) -> Permanent:
    """The server takes no password on a connection without TLS."""
    return Permanent(
        "the server takes no password in the clear",
        where=where,
        remedy="set `security: starttls`, or `tls` and its port, usually 995",
    )
