"""What a relay said of a mail → whose affair it is: the account's, or a domain's of recipients. Pure but for memory.

Used by pace.py and breaker.py, which slow down and pause the account, and by lanes.py, which slows down a domain.
An answer to RCPT is about that recipient, and LMTP's answers to the message are (RFC 5321 3.3, RFC 2033 4.2): they are
his domain's affair, for a relay of many passes on what a domain said, or has limits for each. All others are about
who sends: to MAIL, to the message, and 421 wherever it comes (RFC 5321 3.8). What is said of many domains alike while
nobody's mail is taken is about who sends, too: many relays keep such answers until RCPT.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from service.contract import ascii_domain
from service.outbound.retry import Said, Verdict

# So many domains alike: one or two may have a policy of their own.
DOMAINS_LIMIT: Final = 3
# So many refusals in a row and alike. One is the recipient's affair.
ALIKE_LIMIT: Final = 20
SERVICE_CLOSING: Final = "421"
# RFC 3463 3.8: security or policy.
_PUT_OFF_BY_POLICY: Final = "4.7."
_REFUSED_BY_POLICY: Final = "5.7."


def is_too_fast(said: Said) -> bool:
    """Whether a relay put a mail off because it is too much, or too soon."""
    words = said.reply.split(maxsplit=2)
    return said.verdict is Verdict.PUT_OFF and (
        words[:1] == [SERVICE_CLOSING] or (len(words) > 1 and words[1].startswith(_PUT_OFF_BY_POLICY))
    )


def is_by_policy(said: Said) -> bool:
    """Whether a relay refused a mail for what it is, or whose."""
    words = said.reply.split(maxsplit=2)
    return said.verdict is Verdict.REFUSED and len(words) > 1 and words[1].startswith(_REFUSED_BY_POLICY)


class Spread:
    """Domains of which the same was said since somebody's mail was taken."""

    def __init__(self) -> None:
        self._domains: set[str] = set()

    def is_the_accounts(self, said: Mapping[str, Said]) -> bool:
        """Take note of whom it was said of now; whether it is the account's affair."""
        if len(self._domains) < DOMAINS_LIMIT:
            self._domains.update(domain_of(who) for who, one in said.items() if one.of_recipient)
        return len(self._domains) >= DOMAINS_LIMIT or not all(one.of_recipient for one in said.values())

    def clear(self) -> None:
        """Somebody's mail was taken, or something else was said."""
        self._domains.clear()


def domain_of(recipient: str) -> str:
    """As the settings have it: in lower case, and as it stands on the wire."""
    domain = recipient.rpartition("@")[2].lower()
    if not domain.isascii():
        with suppress(ValueError):  # the builder says what is wrong with it
            return ascii_domain(f"x@{domain}").partition("@")[2].lower()
    return domain
