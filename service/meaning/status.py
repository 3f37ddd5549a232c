"""Enhanced status codes and reply codes: found in a text, and what each means. Pure. RFC 3463, 5248, 5321 4.2."""

import re
from typing import Final

from service.contract import Reason

# Not within an address 192.5.1.1, a version 4.72.1 or a date 2016.4.29.
_STATUS: Final = re.compile(r"(?<![0-9.\[/v-])([245]\.[0-9]{1,2}\.[0-9]{1,3})(?![0-9.]*[0-9])")
# A reply begins a line, or comes after what introduces it; 550 within words is a number like any other.
_REPLY: Final = re.compile(
    r"(?:^|[\s:;<>\"'(\[=#])([245][0-5][0-9])(?=[- :;.,)\]\"']|$)(?![- ]?(?:bytes|messages|days|hours|kb|mb)\b)",
    re.MULTILINE,
)
_UNSPECIFIC: Final = re.compile(r"[245]\.(?:0\.[0-9]+|[0-9]\.0)\Z")

# RFC 7505 4.1 gave 5.1.10 to domains without mail; Microsoft says it of every unknown user, and is heard more often.
# What a code means where no words say more: RFC 3463 section 3 and the registry of RFC 5248, in Sisimai's words.
_BY_STATUS: Final[dict[str, Reason]] = {
    "1.0": Reason.USERUNKNOWN, "1.1": Reason.USERUNKNOWN, "1.2": Reason.HOSTUNKNOWN, "1.3": Reason.USERUNKNOWN,
    "1.4": Reason.FILTERED, "1.6": Reason.HASMOVED, "1.7": Reason.REJECTED, "1.8": Reason.REJECTED,
    "1.9": Reason.SYSTEMERROR, "1.10": Reason.USERUNKNOWN,
    "2.0": Reason.FILTERED, "2.1": Reason.FILTERED, "2.2": Reason.MAILBOXFULL, "2.3": Reason.EXCEEDLIMIT,
    "2.4": Reason.FILTERED,
    "3.0": Reason.SYSTEMERROR, "3.1": Reason.SYSTEMFULL, "3.2": Reason.NOTACCEPT, "3.3": Reason.SYSTEMERROR,
    "3.4": Reason.MESGTOOBIG, "3.5": Reason.SYSTEMERROR,
    "4.0": Reason.NETWORKERROR, "4.1": Reason.EXPIRED, "4.2": Reason.NETWORKERROR, "4.3": Reason.SYSTEMERROR,
    "4.4": Reason.HOSTUNKNOWN, "4.5": Reason.SYSTEMFULL, "4.6": Reason.NETWORKERROR, "4.7": Reason.EXPIRED,
    "4.8": Reason.NETWORKERROR,
    "5.2": Reason.SYNTAXERROR, "5.3": Reason.TOOMANYCONN, "5.4": Reason.SYSTEMERROR, "5.5": Reason.SYSTEMERROR,
    "5.6": Reason.SYNTAXERROR,
    "6.0": Reason.CONTENTERROR, "6.1": Reason.CONTENTERROR, "6.2": Reason.CONTENTERROR, "6.3": Reason.CONTENTERROR,
    "6.5": Reason.CONTENTERROR, "6.6": Reason.CONTENTERROR, "6.7": Reason.CONTENTERROR, "6.8": Reason.CONTENTERROR,
    "6.9": Reason.CONTENTERROR,
    "7.0": Reason.SECURITYERROR, "7.1": Reason.SECURITYERROR, "7.2": Reason.SECURITYERROR,
    "7.3": Reason.SECURITYERROR, "7.4": Reason.SECURITYERROR, "7.5": Reason.SECURITYERROR,
    "7.6": Reason.SECURITYERROR, "7.7": Reason.SECURITYERROR, "7.8": Reason.SECURITYERROR,
    "7.9": Reason.SECURITYERROR, "7.10": Reason.SECURITYERROR, "7.11": Reason.SECURITYERROR,
    "7.13": Reason.SUSPEND, "7.14": Reason.SECURITYERROR, "7.15": Reason.SECURITYERROR, "7.16": Reason.MESGTOOBIG,
    "7.17": Reason.HASMOVED, "7.18": Reason.HASMOVED, "7.19": Reason.SECURITYERROR,
    "7.20": Reason.AUTHFAILURE, "7.21": Reason.AUTHFAILURE, "7.22": Reason.AUTHFAILURE, "7.23": Reason.AUTHFAILURE,
    "7.24": Reason.AUTHFAILURE, "7.25": Reason.REQUIREPTR, "7.26": Reason.AUTHFAILURE, "7.27": Reason.REJECTED,
    "7.28": Reason.SPAMDETECTED, "7.29": Reason.AUTHFAILURE, "7.30": Reason.FAILEDSTARTTLS,
}  # fmt: skip
# A persistent transient failure says something else than a permanent one: the mailbox or the sender may come back.
_TRANSIENT: Final[dict[str, Reason]] = {
    "2.1": Reason.BLOCKED, "4.4": Reason.NETWORKERROR, "7.1": Reason.BLOCKED, "7.2": Reason.BLOCKED,
    "5.3": Reason.SYSTEMERROR,
}  # fmt: skip
# So sure that words may not contradict.
CERTAIN: Final = frozenset(
    (
        Reason.MAILBOXFULL, Reason.HASMOVED, Reason.AUTHFAILURE, Reason.REQUIREPTR, Reason.MESGTOOBIG, Reason.SUSPEND,
        Reason.EXCEEDLIMIT, Reason.FAILEDSTARTTLS,
    )
)  # fmt: skip


def find_status(text: str, reported: str) -> str:
    """The code that says most: the report's own, or one in the diagnosis where that is more specific."""
    found = [code[1] for code in _STATUS.finditer(text[:4000])]
    if reported and _UNSPECIFIC.match(reported) is None:
        # RFC 3464 2.3.4 has Status say what the diagnosis says; those who answer for others often do not know.
        better = [code for code in found if code[0] == reported[0] and _UNSPECIFIC.match(code) is None]
        vague = reported[2:] in ("4.7", "5.1", "4.1")
        return better[0] if better and vague else reported
    specific = [code for code in found if _UNSPECIFIC.match(code) is None]
    if specific:
        return specific[0]
    if found and (not reported or reported[2:] == "0.0"):
        return found[0]
    return reported


def reply_of(text: str) -> int:
    """RFC 5321 4.2: the last server's reply code; 0 where there is none."""
    worst = 0
    for found in _REPLY.finditer(text[:4000]):
        code = int(found[1])
        if code >= 400:
            return code
        worst = worst or code
    return 0


def reason_of(status: str) -> Reason | None:
    """What a status code alone says; None where it says nothing (5.0.0, 5.5.0)."""
    detail = status[2:]
    if status.startswith("4") and detail in _TRANSIENT:
        return _TRANSIENT[detail]
    if status.startswith("4") and detail in ("1.0", "1.1", "1.2", "1.3", "2.0", "3.0", "4.0", "7.0"):
        return None
    return _BY_STATUS.get(detail)
