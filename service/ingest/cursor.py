"""How far a mailbox is announced ⇄ the text of its `Mail-Cursor` header. Pure.

The log is the cursor: the last message of a mailbox's events carries where to go on, committed
together with what it announces. Written by publish.py, read by plan.py. Knows no NATS.
"""

import hashlib
import json
from datetime import datetime
from typing import Annotated, Final

import msgspec

from service.errors import Halted

VERSION: Final = 1
# Epochs that ended one after the other before their mail had been gone through: mailboxes that are renamed at once.
BEYOND_LIMIT: Final = 4
MAILDROP: Final = "pop3-"


class Named(msgspec.Struct, frozen=True, omit_defaults=True):
    """A snapshot of the known state: of the log up to `seq`, the sum of `events` events; without an id of none."""

    seq: int
    events: int = 0
    id: str = ""


class Before(msgspec.Struct, frozen=True, omit_defaults=True):
    """The known state of the epoch before, by which mail is recognised from UID `first` to `top`.

    `elsewhere`: it was of another source, whose EMAILIDs are others. `mailbox`: what it was called, where it was
    renamed. `turn`: as Cursor has it. `beyond`: what that epoch still recognised by when it ended. Without an id
    nothing was announced in it.
    """

    id: str
    uidvalidity: int
    first: int
    top: int
    elsewhere: bool = False
    mailbox: str = ""
    turn: int = 0
    beyond: "Before | None" = None

    def chain(self) -> "list[Before]":
        """It and those beyond, as far as there is something to know of them."""
        one: Before | None = self
        found: list[Before] = []
        while one is not None:
            found += [one] if one.id else []
            one = one.beyond
        return found


class Cursor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a mailbox's log stands.

    `last`: every UID up to it is announced, or is none of ours to announce. `line`: the starting line, the
    highest UID of the mail that was there at first sight; above it everything is announced, up to it only what
    `since` lets through. `fingerprint`: of the message `last`, empty where there is none. `modseq`: all changes up
    to it are announced (RFC 7162), 0 without one. `events`: how many this epoch has, the reset included. `salt` tells
    epochs of one source and uidvalidity apart, `rollbacks` what is counted again after the log forgot it. `box`: what
    the server calls the mailbox for ever, whatever its name (RFC 8474 MAILBOXID). `turn`: how often in this log an
    epoch had no higher uidvalidity than the one before: with it ids are of one epoch only. `former`: name_id of what
    the mailbox was called before, where its epoch began by `renamed`.
    """

    source: str
    uidvalidity: int
    last: int
    line: int
    writer: str
    first: int = 0
    fingerprint: str = ""
    modseq: int = 0
    since: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    events: int = 0
    state: Named | None = None
    before: Before | None = None
    salt: int = 0
    rollbacks: int = 0
    box: str = ""
    turn: int = 0
    former: str = ""
    v: int = VERSION

    @property
    def place(self) -> str:
        """What names the epoch's source in identities: the same for ever."""
        return f"{self.source}+{self.salt}" if self.salt else self.source

    @property
    def needed(self) -> list[str]:
        """The snapshots of epochs before that mail is recognised by."""
        return [one.id for one in self.before.chain()] if self.before is not None else []


class Copy(msgspec.Struct, frozen=True):
    """The copy of a cursor in KV: which stream and sequence it stands for, where the mailbox started, its name."""

    stream_created: Annotated[datetime, msgspec.Meta(tz=True)]
    seq: int
    cursor: Cursor
    start: Cursor
    mailbox: str = ""


class _Version(msgspec.Struct, frozen=True):
    v: int = VERSION


_VERSION: Final = msgspec.json.Decoder(_Version)
_CURSOR: Final = msgspec.json.Decoder(Cursor)
_COPY: Final = msgspec.json.Decoder(Copy)


def before_of(old: Cursor, *, elsewhere: bool = False, mailbox: str = "") -> Before:
    """What the epoch after `old` recognises by. `elsewhere`: on another server; `mailbox`: by which name it was known.

    Where that was not gone through, nothing is old by the line that it drew: what it went on by tells.
    """
    # A maildrop has seen all that there was.
    unread = old.before is not None and old.events <= 1 and not old.source.startswith(MAILDROP)
    id = old.state.id if old.state is not None and not unread else ""
    beyond: Before | None = None
    chain = old.before.chain()[:BEYOND_LIMIT] if old.before is not None else []
    for one in reversed(chain):
        name, is_elsewhere = one.mailbox or mailbox, one.elsewhere or elsewhere
        beyond = msgspec.structs.replace(one, first=1, top=0, mailbox=name, elsewhere=is_elsewhere, beyond=beyond)
    return Before(id, old.uidvalidity, 1, 0, elsewhere=elsewhere, mailbox=mailbox, turn=old.turn, beyond=beyond)


def dump_cursor(cursor: Cursor) -> str:
    """The header's value: JSON in ASCII, one line."""
    return json.dumps(msgspec.to_builtins(cursor), separators=(",", ":"))


def load_cursor(text: str, *, where: str = "Mail-Cursor") -> Cursor | None:
    """The header's value → a cursor; None where it is none of ours. Raises Permanent where a newer version wrote it."""
    try:
        version = _VERSION.decode(text).v
        # Whatever else a newer version changed, it is no stranger: to go on without its position would announce twice.
        if version > VERSION:
            raise Halted(
                f"the log's position is of version {version}, this mailbus reads {VERSION}",
                where=where,
                remedy="run the newer mailbus; if none ever ran here, look who wrote this message, and remove it",
            )
        return _CURSOR.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def dump_copy(copy: Copy) -> bytes:
    """The value of a copy's key."""
    return msgspec.json.encode(copy)


def load_copy(value: bytes) -> Copy | None:
    """The value of a copy's key; None where it cannot be read (then there is no copy)."""
    try:
        return _COPY.decode(value)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def source_id(host: str, username: str, mailbox: str) -> str:
    """Names the place that a cursor is about: another host, user or mailbox is another source."""
    text = f"{host.lower()}\0{username}\0{mailbox}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def maildrop_id(host: str, username: str, mailbox: str) -> str:
    """As source_id, of a maildrop that is read by POP3: another place than the mailbox that IMAP shows."""
    return MAILDROP + source_id(host, username, mailbox)


def has_same_marks(source: str, other: str) -> bool:
    """Whether messages of two sources are known by the same kind of marks."""
    return source.startswith(MAILDROP) == other.startswith(MAILDROP)


def name_id(mailbox: str) -> str:
    """Stands for a name where the name itself may be too long."""
    return hashlib.sha256(mailbox.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def copy_key(account: str, mailbox: str) -> str:
    """The copy's key: a mailbox's name may hold what a key may not."""
    return f"{account}.{hashlib.sha256(mailbox.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
