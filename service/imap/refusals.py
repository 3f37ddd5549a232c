"""What a server says when it refuses → a verdict. Pure.

Used by session.py and writing.py. RFC 5530 (response codes); the words are those of servers that give no code.
"""

import re
from typing import Final

from service.errors import AuthRefused, MailbusError, Permanent, Transient
from service.imap.grammar import Condition, Status

SHOWN_CHARS: Final = 200
# RFC 5530 section 3: the credentials are good or bad, but not now.
_LATER: Final = frozenset({"UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "OVERQUOTA", "THROTTLED"})
_WRONG: Final = frozenset({"AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED", "CONTACTADMIN", "WEBALERT"})
# Gmail: "Too many simultaneous connections"; Outlook: "User is authenticated but not connected"; Yahoo, Courier.
# Dovecot, of a name that just went to another mailbox: "Mailbox was deleted under us".
_LATER_WORDS: Final = re.compile(
    r"too many|temporar|try again|try later|unavailable|internal (server )?error|time(d )?out|\brate\b|busy"
    r"|not connected|maximum number|exceeded|overload|shutting down|deleted under us",
    re.IGNORECASE,
)
# Codes that say nothing of why: the words count. Gmail says [ALERT] with all of them (RFC 9051 7.1: show it).
_WORDY: Final = frozenset({"", "ALERT"})
# Of a login, whatever else is said: QQ lists in one sentence all that may be the reason, "system is busy" among them.
_WRONG_WORDS: Final = re.compile(r"password is incorrect|invalid credentials", re.IGNORECASE)
# Exchange Online: "Request is throttled. Suggested Backoff Time: 299961 milliseconds".
_BACKOFF: Final = re.compile(r"Suggested Backoff Time: (\d{1,9}) milliseconds", re.IGNORECASE)
# Gmail: "Account exceeded command or bandwidth limits"; Exchange: "Request is throttled".
_THROTTLED: Final = frozenset({"THROTTLED", "LIMIT"})
_THROTTLED_WORDS: Final = re.compile(r"throttl|bandwidth|command limit|too many|rate limit", re.IGNORECASE)
# Where it does not say how long: asked again at once it would count that too.
THROTTLED_PAUSE_S: Final = 60.0
_PASSWORD_REMEDY: Final = "check `username` and `password`; providers such as Gmail want an app password or OAuth"
_TLS_REMEDY: Final = "set `security: tls` and its port, usually 993"


class BadCommand(Transient):
    """The server does not know the command, or not with these arguments."""


class NoMailbox(Permanent):
    """There is no mailbox of that name, now."""


# RFC 5530 section 3; TRYCREATE: RFC 9051 7.1.
_MISSING: Final = frozenset({"NONEXISTENT", "TRYCREATE"})
# Cyrus and Courier: "Mailbox does not exist".
_MISSING_WORDS: Final = re.compile(r"not exist|n't exist|unknown mailbox|no such|not found", re.IGNORECASE)
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
    later = _later(answer)
    missing = answer.code in _MISSING or (name in _OPENS and answer.status is Status.NO and not later)
    return Refused(
        f"the mail server refused {name}: {_shown(answer)}",
        where=where,
        remedy="try again later" if later else "see what it says",
        missing=missing,
        later=later,
    )


def _shown(answer: Condition) -> str:
    # Without the login, which protocol.py has taken out.
    text = "".join(char if char.isprintable() else " " for char in answer.text)[:SHOWN_CHARS]
    return f"[{answer.code}] {text}" if answer.code else text


def _later(answer: Condition) -> bool:
    if answer.code in _LATER or _BACKOFF.search(answer.text):
        return True
    return answer.code in _WORDY and bool(_LATER_WORDS.search(answer.text))


def throttled(answer: Condition) -> bool:
    """Whether a command was refused because of how much was asked, not because of what: it says nothing of the mail."""
    if answer.status is not Status.NO:
        return False
    return answer.code in _THROTTLED or bool(_BACKOFF.search(answer.text) or _THROTTLED_WORDS.search(answer.text))


def _pause_s(answer: Condition) -> float | None:
    """How long the server wants us to wait, where it says so."""
    told = _BACKOFF.search(answer.text)
    return int(told[1]) / 1000 if told else None


def refused_login(answer: Condition, *, where: str, detail: str = "", remedy: str = "") -> MailbusError:
    """LOGIN or AUTHENTICATE was answered NO or BAD.

    detail: what the server said before its answer; remedy: what this provider wants.
    """
    said = _shown(answer)
    wrong = answer.code in _WRONG or (answer.code in _WORDY and _WRONG_WORDS.search(answer.text))
    if not wrong and _later(answer):
        return Transient(f"the server lets nobody in now: {said}", where=where, retry_after_s=_pause_s(answer))
    if answer.code == "PRIVACYREQUIRED":
        return Permanent(f"the server wants encryption: {said}", where=where, remedy="set `security: tls`")
    return AuthRefused(
        f"the server refused the login: {said}" + (f" ({detail})" if detail else ""),
        where=where,
        remedy=remedy or _PASSWORD_REMEDY,
    )


def refused_starttls(answer: Condition, *, where: str) -> MailbusError:
    """STARTTLS was answered NO or BAD: nothing goes in the clear instead."""
    said = _shown(answer)
    if _later(answer):
        return Transient(f"no STARTTLS now: {said}", where=where, retry_after_s=_pause_s(answer))
    return Permanent(f"the server refuses STARTTLS: {said}", where=where, remedy=_TLS_REMEDY)


def no_starttls(*, skipped: bool, where: str) -> Permanent:
    """The server offers none, or has skipped login and TLS with its greeting (RFC 9051 7.1.4, PREAUTH)."""
    what = "the server skips login and TLS (PREAUTH)" if skipped else "the server offers no STARTTLS here"
    return Permanent(f"{what}: nothing is sent in the clear", where=where, remedy=_TLS_REMEDY)


def refused_command(name: str, answer: Condition, *, where: str) -> MailbusError:
    """Any other command was answered NO or BAD."""
    said = _shown(answer)
    if name in {"EXAMINE", "SELECT"} and answer.code not in _LATER and answer.status is Status.NO:
        if _later(answer):
            return Transient(f"the mailbox cannot be opened now: {said}", where=where, retry_after_s=_pause_s(answer))
        missing = answer.code in _MISSING or (answer.code in _WORDY and _MISSING_WORDS.search(answer.text))
        verdict = NoMailbox if missing else Permanent
        return verdict(
            f"the mailbox cannot be opened: {said}",
            where=where,
            remedy="check its name in `mailboxes`; `mailbus check` lists those that are there",
        )
    other = BadCommand if answer.status is Status.BAD else Transient
    pause_s = _pause_s(answer) or (THROTTLED_PAUSE_S if throttled(answer) else None)
    return other(f"{name} was answered {answer.status}: {said}", where=where, retry_after_s=pause_s)
