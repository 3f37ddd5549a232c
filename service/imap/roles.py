"""A server's mailboxes → their roles. Pure.

Used by commands, and by ingest for Gmail's labels. RFC 6154 (SPECIAL-USE); RFC 8621 section 2: a role is had by one
mailbox at the most.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from service.contract import ROLES
from service.imap.session import ListedMailbox

SPECIAL_USE: Final = {"\\" + role: role for role in ROLES}
# What programs call them where the server does not say; never guessed where it says anything at all.
USUAL_NAMES: Final = {
    "archive": "archive",
    "drafts": "drafts",
    "junk": "junk",
    "junk e-mail": "junk",
    "junk email": "junk",
    "spam": "junk",
    "sent": "sent",
    "sent items": "sent",
    "sent messages": "sent",
    "trash": "trash",
    "deleted items": "trash",
    "deleted messages": "trash",
}
NONE_NAMED: Final[Mapping[str, str]] = MappingProxyType({})


def roles(mailboxes: Iterable[ListedMailbox], named: Mapping[str, str] = NONE_NAMED) -> dict[str, str]:
    """The name of each mailbox that has a role → the role. `named`: by role, what somebody says who must know."""
    listed = sorted(mailboxes, key=lambda mailbox: mailbox.name)
    by_role = {role: name for role, name in named.items() if any(mailbox.name == name for mailbox in listed)}
    for mailbox in listed:
        for attribute in sorted(mailbox.attributes & SPECIAL_USE.keys()):
            by_role.setdefault(SPECIAL_USE[attribute], mailbox.name)
    if by_role.keys() <= named.keys():
        for mailbox in listed:
            role = _usual(mailbox)
            if role is not None:
                by_role.setdefault(role, mailbox.name)
    found: dict[str, str] = {"INBOX": "inbox"}
    for role, name in by_role.items():
        found.setdefault(name, role)
    return found


def by_role(mailboxes: Iterable[ListedMailbox], named: Mapping[str, str] = NONE_NAMED) -> dict[str, str]:
    """Each role → the name of the mailbox that has it."""
    return {role: name for name, role in roles(mailboxes, named).items()}


def _usual(mailbox: ListedMailbox) -> str | None:
    """By the last part of its name, at the top or below INBOX, where some servers keep everything."""
    above, _, name = mailbox.name.rpartition(mailbox.delimiter) if mailbox.delimiter else ("", "", mailbox.name)
    return USUAL_NAMES.get(name.lower()) if above in {"", "INBOX"} and selectable(mailbox) else None


def selectable(mailbox: ListedMailbox) -> bool:
    """Whether it can be opened (RFC 9051 7.3.1)."""
    return not mailbox.attributes & {r"\noselect", r"\nonexistent"}
