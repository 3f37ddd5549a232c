"""A message of a mailbox before it is an event: what is known of it, and what was read. Pure; one for every mail."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What is known of a message before it is read. `size` in octets.

    `identity`: names the message in its maildrop, `content` its bytes once they were read, `print` its header and first
    lines (prints.py), all in hex digits, where the source numbers messages itself. `mailboxes`: names of all those that
    it is in, where the source says so; `elsewhere`: another that is followed has it and announces it. `unmarked`: seen
    by another way, whose sizes differ.
    """

    uid: int
    size: int
    flags: frozenset[str]
    internal_date: datetime | None
    # Its Email's id in the epoch before, where it was recognised.
    previous_id: str = ""
    email_id: str = ""
    thread_id: str = ""
    mailboxes: frozenset[str] = frozenset()
    elsewhere: bool = False
    identity: str = ""
    content: str = ""
    print: str = ""
    unmarked: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """A message as it was read: whole, or its header alone where that was asked for."""

    surveyed: Surveyed
    body: bytes
    whole: bool
