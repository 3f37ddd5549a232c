"""What servers say when they refuse a mail → why: expressions for each reason, in the order of asking. Pure.

The reasons and their sense are Sisimai's; the words are those that mail servers and providers use, taken as loosely as
they vary. They are searched in lower case within at most a few thousand characters; the pieces that stand in braces are
bounded, so that no search goes back far.
"""

import re
from typing import Final

from service.contract import Reason
from service.meaning import words_ours as ours
from service.meaning import words_theirs as theirs

_PIECES: Final = {
    "who": "(?:user|recipient|mail ?box|account|address(?:ee)?|person|alias|e-?mail(?: address)?|userid|username|name"
    "|destination|spectator|empf[aä]nger|adresse|usuario|utente|utilisateur|destinataire|odbiorca|benutzer)",
    "one": r"(?: \S+| \(\S+\)){0,2}",
    "is": "(?:(?:is|are|was|were|has|have|had|been|be|being|does|do|did|could|can|will|would|currently|temporarily|now)"
    " ){0,4}",
    "the": "(?:(?:the|a|an|any|its|it|their|his|her|your|our|as|for|be|to|by|of|in|on|is|due|because|being) ){0,4}",
    "of": "(?:(?:address|domain|email|e-mail|was|is|has|been|verify|verification|server|not|in) ){0,4}",
    "box": "(?:mail ?box|mail ?folder|mail ?dir|mail ?drop|inbox|account|mail)",
    "quota": "(?:quota|storage(?: limit| allocation)?|(?:disk )?space(?: limit)?|local limit|allocation)",
    "kind": "(?:(?:allowed|allocated|disk|mailbox|mail|storage|maximum|message|local|available|free|system|receiving)"
    " ){0,3}",
    "peer": r"\b(?:ip|ips|host|client|server|network|address|connection|connections|domain|mta)\b",
    "near": r"[^.;]{0,50}",
    "sender": r"(?:sender|return path|mail from|\bfrom) (?:address |domain |name )?(?:\S{1,80}@\S{1,80} )?",
}


def _any(alternatives: str) -> re.Pattern[str]:
    text = "|".join(line.strip() for line in alternatives.strip().splitlines())
    for name, piece in _PIECES.items():
        text = text.replace(f"{{{name}}}", piece)
    return re.compile(text)


# Words that look like a sender's rejection and are none.
NOT_REJECTED: Final = _any(ours.NOT_REJECTED)
# The order of asking: the surest words first, those that say least last.
ORDER: Final[tuple[tuple[Reason, re.Pattern[str]], ...]] = tuple(
    (reason, _any(words))
    for reason, words in (
        (Reason.SUPPRESSED, theirs.SUPPRESSED),
        (Reason.SYSTEMFULL, theirs.SYSTEM_FULL),
        (Reason.MAILBOXFULL, theirs.MAILBOX_FULL),
        (Reason.EXCEEDLIMIT, ours.EXCEED_LIMIT),
        (Reason.MESGTOOBIG, ours.TOO_BIG),
        (Reason.REJECTED, ours.SENDER),
        (Reason.BLOCKED, ours.HELO),
        (Reason.NOTACCEPT, theirs.NOT_ACCEPT),
        (Reason.SUSPEND, theirs.SUSPENDED),
        (Reason.HASMOVED, theirs.HAS_MOVED),
        (Reason.NORELAYING, ours.NO_RELAYING),
        (Reason.AUTHFAILURE, ours.AUTH_FAILURE),
        (Reason.REQUIREPTR, ours.REQUIRE_PTR),
        (Reason.NOTCOMPLIANTRFC, ours.NOT_COMPLIANT),
        (Reason.BADREPUTATION, ours.BAD_REPUTATION),
        (Reason.VIRUSDETECTED, ours.VIRUS),
        (Reason.FILTERED, theirs.FILTERED),
        (Reason.SPAMDETECTED, ours.SPAM),
        (Reason.EXPIRED, theirs.UNREACHED),
        (Reason.REJECTED, ours.REJECTED),
        (Reason.NETWORKERROR, theirs.NETWORK),
        (Reason.SECURITYERROR, ours.AUTHENTICATION),
        (Reason.HOSTUNKNOWN, theirs.HOST_UNKNOWN),
        (Reason.USERUNKNOWN, theirs.USER_UNKNOWN),
        (Reason.CONTENTERROR, ours.CONTENT),
        (Reason.FAILEDSTARTTLS, theirs.FAILED_STARTTLS),
        (Reason.SPEEDING, ours.SPEEDING),
        (Reason.TOOMANYCONN, ours.TOO_MANY),
        (Reason.POLICYVIOLATION, ours.POLICY),
        (Reason.BLOCKED, ours.BLOCKED),
        (Reason.SECURITYERROR, ours.SECURITY),
        (Reason.EXPIRED, theirs.EXPIRED),
        (Reason.SYSTEMERROR, theirs.SYSTEM_ERROR),
        (Reason.MAILERERROR, theirs.MAILER_ERROR),
        (Reason.NETWORKERROR, theirs.LATE_NETWORK),
    )
)
