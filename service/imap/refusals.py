"""What a server says when it refuses → a verdict. Pure.

Used by session.py and writing.py. RFC 5530 (response codes); the words are those of servers that give no code.
"""

import re
from typing import Final

from service.contract import without_credentials
from service.errors import AuthRefused, MailbusError, Permanent, Transient
from service.imap.grammar import Condition, Status

SHOWN_CHARS: Final = 200
# RFC 5530 section 3: the credentials are good or bad, but not now.
_LATER: Final = frozenset({"UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "OVERQUOTA"})
_WRONG: Final = frozenset({"AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED", "CONTACTADMIN", "WEBALERT"})
# Gmail: "Too many simultaneous connections"; Outlook: "User is authenticated but not connected"; Yahoo, Courier.
_LATER_WORDS: Final = re.compile(
    r"too many|temporar|try again|try later|unavailable|internal (server )?error|time(d )?out|rate|busy|not connected"
    r"|maximum number|exceeded|overload|shutting down",
    re.IGNORECASE,
)


# RFC 5530 section 3; TRYCREATE: RFC 9051 7.1.
_MISSING: Final = frozenset({"NONEXISTENT", "TRYCREATE"})
_OPENS: Final = frozenset({"EXAMINE", "SELECT", "STATUS"})


class Refused(Permanent):
    """The server answered NO or BAD to what somebody asked for, over a connection that is as good as before.

    `missing`: there is no such mailbox; `later`: it may say otherwise later.
    """

    def __init__(self, what: str, *, where: str, remedy: str, missing: bool = False, later: bool = False) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.missing = missing
        self.later = later


def refused_request(name: str, answer: Condition, *, where: str) -> Refused:
    """A command that was asked for over the bus was answered NO or BAD."""
    later = answer.code in _LATER or (not answer.code and bool(_LATER_WORDS.search(answer.text)))
    missing = answer.code in _MISSING or (name in _OPENS and answer.status is Status.NO and not later)
    return Refused(
        f"the mail server refused {name}: {_shown(answer)}",
        where=where,
        remedy="try again later" if later else "see what it says",
        missing=missing,
        later=later,
    )


def _shown(answer: Condition, username: str = "", password: str = "") -> str:
    text = "".join(char if char.isprintable() else " " for char in answer.text)
    text = without_credentials(text, username, password)[:SHOWN_CHARS]
    return f"[{answer.code}] {text}" if answer.code else text


def refused_login(answer: Condition, *, where: str, username: str, password: str) -> MailbusError:
    """LOGIN or AUTHENTICATE was answered NO or BAD; some servers repeat the credentials, which nobody may read."""
    said = _shown(answer, username, password)
    if answer.code in _LATER or (answer.code not in _WRONG and _LATER_WORDS.search(answer.text)):
        return Transient(f"the server lets nobody in now: {said}", where=where)
    if answer.code == "PRIVACYREQUIRED":
        return Permanent(f"the server wants encryption: {said}", where=where, remedy="set `security: tls`")
    return AuthRefused(
        f"the server refused the login: {said}",
        where=where,
        remedy="check `username` and `password`; providers such as Gmail want an app password or OAuth",
    )


def refused_command(name: str, answer: Condition, *, where: str) -> MailbusError:
    """Any other command was answered NO or BAD."""
    said = _shown(answer)
    if name in {"EXAMINE", "SELECT"} and answer.code not in _LATER and answer.status is Status.NO:
        if _LATER_WORDS.search(answer.text):
            return Transient(f"the mailbox cannot be opened now: {said}", where=where)
        return Permanent(
            f"the mailbox cannot be opened: {said}",
            where=where,
            remedy="check its name in `mailboxes`; `mailbus check` lists those that are there",
        )
    return Transient(f"{name} was answered {answer.status}: {said}", where=where)
