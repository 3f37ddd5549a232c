"""What a server says of a message beyond its UID: an identity for ever, a conversation, Gmail's labels. Pure.

Used by session.py, changes.py and ingest. RFC 8474 (OBJECTID); developers.google.com/gmail/imap/imap-extensions
(X-GM-EXT-1). Gmail shows a message as a copy in each mailbox whose label it has.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from service.imap.encode import decode_mailbox, encode_mutf7
from service.imap.grammar import Value

GMAIL: Final = "X-GM-EXT-1"
OBJECTID: Final = "OBJECTID"
LABELS: Final = "X-GM-LABELS"
# RFC 8474 section 7, objectid; X-GM-MSGID and X-GM-THRID are numbers of 64 bits.
_OBJECTID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
# Gmail allows 10,000 labels an account; all of a message's stand in a header, which NATS bounds.
LABELS_LIMIT: Final = 200
LABELS_LIMIT_BYTES: Final = 16 * 1024
SETS_LIMIT: Final = 1024

# Labels of Gmail's own are a mailbox's role (RFC 6154 names them otherwise), or say what a keyword says.
_ROLE_OF: Final = {
    r"\inbox": "inbox",
    r"\sent": "sent",
    r"\draft": "drafts",
    r"\drafts": "drafts",
    r"\starred": "flagged",
    r"\important": "important",
    r"\spam": "junk",
    r"\junk": "junk",
    r"\trash": "trash",
}
# RFC 8457: `$Important`. \Starred and \Draft are flags already.
_KEYWORD_OF: Final = {r"\important": "$Important"}
# What no atom of IMAP can hold.
_NO_ATOM: Final = re.compile(r'[\x00-\x20(){%*"\\\]\x7f-\U0010ffff]')


@dataclass(frozen=True, slots=True)
class Labels:
    """What a message's labels come to: flags, and the names of all mailboxes that it is in; both empty elsewhere."""

    flags: frozenset[str] = frozenset()
    mailboxes: frozenset[str] = frozenset()


NO_LABELS: Final = Labels()


def identity_items(capabilities: frozenset[str]) -> tuple[str, ...]:
    """What to FETCH with a survey, by what the server offers."""
    if OBJECTID in capabilities:
        named: tuple[str, ...] = ("EMAILID", "THREADID")
    else:
        named = ("X-GM-MSGID", "X-GM-THRID") if GMAIL in capabilities else ()
    return (*named, *label_items(capabilities))


def label_items(capabilities: frozenset[str]) -> tuple[str, ...]:
    """What to FETCH with flags."""
    return (LABELS,) if GMAIL in capabilities else ()


def email_id_of(items: Mapping[str, Value]) -> str:
    """The identity of a message in all mailboxes of its account, for ever; empty where the server has none."""
    return _id(items.get("EMAILID")) or _id(items.get("X-GM-MSGID"))


def thread_id_of(items: Mapping[str, Value]) -> str:
    """The identity of its conversation; empty where the server has none (RFC 8474 5.2: it may say NIL)."""
    return _id(items.get("THREADID")) or _id(items.get("X-GM-THRID"))


def _id(value: Value) -> str:
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else ""
    return text if _OBJECTID.fullmatch(text) else ""


class Labelling:
    """X-GM-LABELS as they are seen in one mailbox. `by_role`: the names of the account's mailboxes that have a role.

    Messages have few sets of labels: each is made out once.
    """

    def __init__(self, mailbox: str = "", by_role: Mapping[str, str] | None = None) -> None:
        self._mailbox = mailbox
        self._by_role = dict(by_role or {})
        self._apart = {self._by_role[role] for role in ("junk", "trash") if role in self._by_role}
        self._seen: dict[tuple[bytes, ...], Labels] = {}

    def read(self, items: Mapping[str, Value]) -> Labels:
        """The labels of one FETCH."""
        value = items.get(LABELS)
        if not isinstance(value, list):
            return NO_LABELS
        labels = [one for one in value if isinstance(one, bytes)][:LABELS_LIMIT]
        while sum(map(len, labels)) > LABELS_LIMIT_BYTES:
            labels.pop()
        wire = tuple(labels)
        found = self._seen.get(wire)
        if found is None:
            if len(self._seen) >= SETS_LIMIT:
                self._seen.clear()
            found = self._seen[wire] = self._made(wire)
        return found

    def _made(self, wire: tuple[bytes, ...]) -> Labels:
        flags: set[str] = set()
        # The label of the mailbox that is open is not among them.
        mailboxes = {self._mailbox}
        for label in wire:
            lowered = label.decode("utf-8", "replace").lower()
            if lowered.startswith("\\"):
                flags |= {_KEYWORD_OF[lowered]} if lowered in _KEYWORD_OF else set()
                mailboxes |= {self._by_role[role] for role in [_ROLE_OF.get(lowered)] if role in self._by_role}
            else:
                flags.add(label_flag(label))
                mailboxes.add(decode_mailbox(label, utf8=False))
        # Gmail keeps in \All what is neither junk nor trash.
        if "all" in self._by_role and not mailboxes & self._apart:
            mailboxes.add(self._by_role["all"])
        return Labels(frozenset(flags), frozenset(mailboxes))


def label_flag(label: bytes) -> str:
    """A label as a flag could be called: what an atom cannot hold is `_`, and none is taken for one of RFC 8621 4.1.1.

    A name that is not ASCII is written in modified UTF-7, whichever way the server sent it.
    """
    text = _NO_ATOM.sub("_", encode_mutf7(decode_mailbox(label, utf8=False)))
    return "_" + text[1:] if text.startswith("$") else text
