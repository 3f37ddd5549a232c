"""A diagnosis, its codes and the command that was refused → why, and whether the address is worth another try. Pure."""

import re
from dataclasses import dataclass
from typing import Final

from service.contract import Action, Reason
from service.meaning.fields import one_of
from service.meaning.providers import by_provider
from service.meaning.status import CERTAIN, reason_of
from service.meaning.words import NOT_REJECTED, ORDER

# A reply has at most 512 octets a line (RFC 5321 4.5.3.1.5); ten lines of it are more than anybody reads.
_CHARS: Final = 4000
# Of all replies in a mail so much is asked for words, 2 to 5 µs a character: it may hold the event loop. Most reports
# have a few hundred, and those of many recipients say the same of each.
_ALL_CHARS: Final = 4 * 1024
_HARD: Final = frozenset((Reason.USERUNKNOWN, Reason.HOSTUNKNOWN, Reason.HASMOVED))
_COMMAND: Final = one_of(
    r"""
    (?:\b(?:reply to|after|our(?: final)?|response to|smtp:|sent:|during|refused at)|>>>)\s*(?:end of )?\W{0,2}_WORD_
    \b(?:command:?|end of|after the|to the)\s*\W{0,2}_WORD_
    end of (message)
    -smtp (command)\W{1,4}data
    my (name) was rejected
    (sender) was rejected
    does not like (recipient)
    failed (on) data
    \[(rcpt)_to\]
    """.replace(
        "_WORD_", r"(rcpt|mail from|data|helo|ehlo|initial connection|connect(?:ion|ing)?|starttls|auth|bdat)\b"
    )
)
_COMMANDS: Final = {
    "rcpt": "RCPT", "recipient": "RCPT",
    "mail from": "MAIL", "sender": "MAIL",
    "data": "DATA", "bdat": "DATA", "message": "DATA", "command": "DATA", "on": "DATA",
    "helo": "EHLO", "ehlo": "EHLO", "name": "EHLO",
    "initial connection": "CONN", "connect": "CONN", "connection": "CONN", "connecting": "CONN",
    "starttls": "STARTTLS", "auth": "AUTH",
}  # fmt: skip
# Whoever refuses before the content came has not looked at it (RFC 5321 3.3).
_BEFORE_CONTENT: Final = frozenset(("CONN", "EHLO", "MAIL", "STARTTLS", "AUTH"))
_CONTENT: Final = frozenset((Reason.VIRUSDETECTED, Reason.CONTENTERROR, Reason.NOTCOMPLIANTRFC))
_CONNECTING: Final = frozenset(("CONN", "EHLO"))
_OF_PEERS: Final = frozenset(
    (
        Reason.REQUIREPTR, Reason.TOOMANYCONN, Reason.SPEEDING, Reason.BADREPUTATION, Reason.EXPIRED,
        Reason.NETWORKERROR,
        Reason.SPAMDETECTED, Reason.SYSTEMERROR, Reason.SYSTEMFULL, Reason.NOTACCEPT, Reason.POLICYVIOLATION,
    )
)  # fmt: skip
# Words that say less than a specific status.
_WEAK: Final = frozenset((Reason.EXPIRED, Reason.SYSTEMERROR, Reason.SECURITYERROR, Reason.MAILERERROR))
_VAGUE: Final = frozenset(
    (Reason.SECURITYERROR, Reason.SYSTEMERROR, Reason.NETWORKERROR, Reason.FILTERED, Reason.EXPIRED)
)
_NO_USER: Final = ("1.1", "1.10")
# qmail ends every notice with it.
_NOISE: Final = re.compile(r"i'm not going to try again; this message has been in the queue too long\.?")
_AGAIN: Final = re.compile(r"(?<=[a-z,;)'\]] )[245][0-5][0-9][- ](?:[245]\.[0-9]{1,3}\.[0-9]{1,3} )?(?=[a-z(])")


# What servers write into each reply and no expression asks for: ids of mails and sessions, times, numbers of tickets.
_IDS: Final = re.compile(r"(?<![a-z0-9])(?:[0-9]{5,}|(?=[a-z]{0,40}[0-9][a-z]{0,40}[0-9])[a-z0-9]{6,80})(?![a-z0-9])")


@dataclass(frozen=True, slots=True)
class Words:
    """All that a report says about one refusal. `code` is SMTP's reply, 0 without one; the rest is "" without."""

    said: str
    notice: str
    status: str
    code: int
    command: str
    remote: str
    recipient: str
    reporting: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`hard`: another try would be refused as well."""

    reason: Reason
    hard: bool


def command_of(text: str) -> str:
    """The SMTP command that a diagnosis says was refused; "" where it does not say."""
    found = _COMMAND.search(text[:_CHARS])
    if found is None or found.lastindex is None:
        return ""
    return _COMMANDS[found[found.lastindex].lower()]


class Diagnoses:
    """Those of one mail. `cut`: it had so many words that some were not looked at, and codes alone count."""

    def __init__(self) -> None:
        self.cut = False
        self._left = _ALL_CHARS
        self._known: dict[tuple[str, ...], Reason | None] = {}

    def of(self, words: Words, action: Action) -> Diagnosis:
        """The reason, by the provider's own codes, then by words, then by status, then by the reply code."""
        domain = words.recipient.rpartition("@")[2]
        text = _plain(words.said, words.recipient, domain)
        command = words.command or command_of(words.said) or command_of(words.notice)
        reason = self._asked(text, words.status, command, words.remote, domain, words.reporting)
        if reason is None and words.notice and words.notice != words.said:
            reason = self._asked(_plain(words.notice, words.recipient, domain), words.status, command)
        if reason is None and words.status:
            reason = reason_of(words.status)
        if reason is None and command in _CONNECTING:
            reason = Reason.BLOCKED
        if reason is None:
            reason = Reason.EXPIRED if action is Action.DELAYED else _by_code(words.code, text)
        return Diagnosis(reason, _is_hard(reason, words.status, words.code))

    def _asked(self, text: str, status: str, command: str, *hosts: str) -> Reason | None:
        """By words, those of providers first. What is said of one recipient is often said of all: it is asked once,
        whatever ids are in it."""
        key = (_IDS.sub("0", text), status, command, *hosts)
        if key not in self._known:
            if len(text) > self._left:
                self.cut = True
                return None
            self._left -= len(text)
            self._known[key] = by_provider(text, status, command, hosts) or _by_words(text, status, command)
        return self._known[key]


def _plain(text: str, recipient: str, domain: str) -> str:
    """One line in lower case, without the codes that begin each line of a reply (RFC 5321 4.2.1), and the name.

    Whom a reply is about says nothing of why; without him it is the same for all.
    """
    plain = " ".join(text[:_CHARS].lower().split())
    if domain != recipient:
        plain = plain.replace(recipient.lower(), f"a@{domain.lower()}")
    return _AGAIN.sub("", _NOISE.sub("", plain))


def _by_words(text: str, status: str, command: str) -> Reason | None:
    known = reason_of(status) if status else None
    if known is not None and known in CERTAIN:
        return known
    for reason, pattern in ORDER:
        if pattern.search(text) is None:
            continue
        if reason in _CONTENT and command in _BEFORE_CONTENT:
            continue
        if reason is Reason.REJECTED and NOT_REJECTED.search(text) is not None:
            continue
        if reason in _WEAK and known is not None and known not in _VAGUE:
            return known
        if (
            reason is Reason.USERUNKNOWN
            and (command == "DATA" or (known is Reason.FILTERED and command != "RCPT"))
            and status[2:] not in _NO_USER
        ):
            # Who finds out after the content that there is no such user has a filter, not a directory.
            return Reason.FILTERED
        if command in _CONNECTING and reason not in _OF_PEERS:
            # Nobody has been named yet: it is we who are not wanted.
            return Reason.BLOCKED
        return reason
    return None


def _by_code(code: int, text: str) -> Reason:
    """RFC 5321 4.2.2 and 4.2.3, where there are no words that anybody knows."""
    if code == 521 or code == 556:
        return Reason.NOTACCEPT
    if code == 525:
        return Reason.SUSPEND
    if code in (523, 524, 538):
        return Reason.FAILEDSTARTTLS
    if 500 <= code <= 507 or 400 < code < 408:
        return Reason.SYNTAXERROR
    return Reason.ONHOLD if text else Reason.UNDEFINED


def _is_hard(reason: Reason, status: str, code: int) -> bool:
    if reason is Reason.NOTACCEPT:
        return not (status.startswith("4") or 400 <= code < 500)
    return reason in _HARD
