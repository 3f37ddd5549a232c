"""A scripted server with Gmail's capabilities and habits: labels are mailboxes, a message is in as many as it has.

What it does is from developers.google.com/gmail/imap/imap-extensions and from transcripts of the real one; it has no
QRESYNC, leaves the label of the mailbox that is open out of X-GM-LABELS, and keeps in All Mail what is neither spam nor
trash. `Letter.labels` are names as X-GM-LABELS has them, `\\Inbox` and the like for those of its own.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.scripted import serving

CAPABILITIES: Final = (
    "IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID XLIST CHILDREN X-GM-EXT-1 UIDPLUS COMPRESS=DEFLATE ENABLE MOVE"
    " CONDSTORE ESEARCH UTF8=ACCEPT LIST-EXTENDED LIST-STATUS LITERAL- SPECIAL-USE APPENDLIMIT=35651584"
)
ALL: Final = "[Gmail]/All Mail"
SPAM: Final = "[Gmail]/Spam"
TRASH: Final = "[Gmail]/Trash"
# Mailbox → its attribute, and the label that puts a message there.
OWN: Final = {
    "INBOX": ("", "\\Inbox"),
    ALL: ("\\All", ""),
    "[Gmail]/Sent Mail": ("\\Sent", "\\Sent"),
    SPAM: ("\\Junk", "\\Spam"),
    TRASH: ("\\Trash", "\\Trash"),
    "[Gmail]/Starred": ("\\Flagged", "\\Starred"),
    "[Gmail]/Important": ("\\Important", "\\Important"),
}


@dataclass
class Letter:
    """One message of the account."""

    msgid: int
    thrid: int
    raw: bytes
    labels: set[str]
    flags: set[str] = field(default_factory=set)
    modseq: int = 1
    uids: dict[str, int] = field(default_factory=dict)  # by mailbox


@dataclass
class Gmail(ImapStub):
    """One account."""

    capabilities: str = CAPABILITIES
    greeting: str = "* OK Gimap ready for requests from 192.0.2.1 a1mb2\r\n"
    letters: list[Letter] = field(default_factory=list)
    own_labels: list[str] = field(default_factory=lambda: ["Work", "Büro"])
    modseq: int = 1000
    next_uid: dict[str, int] = field(default_factory=dict)
    selected: dict[int, str] = field(default_factory=dict)
    refusing: str = ""  # what UID FETCH of bodies is answered

    # -- what happens to mail ---------------------------------------------------------------------------------

    async def put(self, raw: bytes, *labels: str, thread: int | None = None) -> Letter:
        """A message comes."""
        number = 1278455344230334865 + len(self.letters)
        letter = Letter(number, thread or number, raw, set())
        self.letters.append(letter)
        await self.label(letter, *labels)
        return letter

    async def label(self, letter: Letter, *labels: str) -> None:
        """It has these labels from now on, and no others."""
        before = dict(letter.uids)
        letter.labels = set(labels)
        self.modseq += 1
        letter.modseq = self.modseq
        homes = {name for name, (_, label) in OWN.items() if label and label in labels}
        homes |= {label for label in labels if not label.startswith("\\")}
        if not homes & {SPAM, TRASH}:
            homes.add(ALL)
        for name in before.keys() - homes:
            seq = self.box(name).index(letter) + 1
            del letter.uids[name]
            await self.say(name, f"* {seq} EXPUNGE")
        for name in sorted(homes - before.keys()):
            letter.uids[name] = self.next_uid.get(name, 1)
            self.next_uid[name] = letter.uids[name] + 1
            await self.say(name, f"* {len(self.box(name))} EXISTS")
        for name in before.keys() & homes:
            await self.say(name, f"* {self.box(name).index(letter) + 1} FETCH {self._flags(letter, name)}")

    async def say(self, mailbox: str, line: str) -> None:
        """Something unasked, to whoever idles in a mailbox."""
        for connection in self.connections:
            if connection.idling and self.selected.get(id(connection)) == mailbox:
                await connection.send(f"{line}\r\n")

    def box(self, mailbox: str) -> list[Letter]:
        """A mailbox's messages by UID."""
        return sorted((one for one in self.letters if mailbox in one.uids), key=lambda one: one.uids[mailbox])

    # -- what is said -----------------------------------------------------------------------------------------

    async def _behave(self, connection: Connection, tag: str, name: str, arguments: str) -> None:
        here = self.selected.get(id(connection), "")
        answer = f"{tag} OK Success"
        if name in {"EXAMINE", "SELECT"}:
            answer = await self._open(connection, tag, arguments)
        elif name == "LIST":
            for mailbox, (attribute, _) in OWN.items():
                await connection.send(f'* LIST (\\HasNoChildren {attribute}) "/" "{mailbox}"\r\n'.replace(" )", ")"))
            for label in self.own_labels:
                await connection.send(f'* LIST (\\HasNoChildren) "/" "{self.name(label, connection)}"\r\n')
        elif name == "UID FETCH":
            answer = await self._fetch(connection, tag, here, arguments)
        elif name == "UID SEARCH":
            found = self._search(here, arguments)
            shown = f" ALL {','.join(map(str, found))}" if found else ""
            await connection.send(f'* ESEARCH (TAG "{tag}") UID{shown}\r\n')
        elif name == "ENABLE":
            await connection.send("* ENABLED UTF8=ACCEPT\r\n")
        elif name == "NOOP":
            await connection.send(f"* {len(self.box(here))} EXISTS\r\n" if here else "")
        else:
            if name == "IDLE" and here:
                # RFC 9051 7: what came since the last command is said with the next one.
                await connection.send(f"* {len(self.box(here))} EXISTS\r\n")
            await super()._behave(connection, tag, name, arguments)
            return
        await connection.send(f"{answer}\r\n")

    def name(self, label: str, connection: Connection) -> str:
        """UTF8=ACCEPT is enabled by everybody who tests with this."""
        return label

    async def _open(self, connection: Connection, tag: str, arguments: str) -> str:
        found = re.match(r'"((?:[^"\\]|\\.)*)"', arguments)
        mailbox = found[1] if found else arguments.split()[0]
        if mailbox not in OWN and mailbox not in self.own_labels:
            return f"{tag} NO [NONEXISTENT] Unknown Mailbox: {mailbox} (Failure)"
        self.selected[id(connection)] = mailbox
        await connection.send(
            f"* FLAGS (\\Answered \\Flagged \\Draft \\Deleted \\Seen $NotPhishing $Phishing)\r\n"
            f"* OK [UIDVALIDITY {11 + list(OWN).index(mailbox) if mailbox in OWN else 99}] UIDs valid.\r\n"
            f"* {len(self.box(mailbox))} EXISTS\r\n* 0 RECENT\r\n"
            f"* OK [UIDNEXT {self.next_uid.get(mailbox, 1)}] Predicted next UID.\r\n"
            f"* OK [HIGHESTMODSEQ {self.modseq}]\r\n"
        )
        return f"{tag} OK [READ-ONLY] {mailbox} selected. (Success)"

    def _wanted(self, here: str, wanted: str) -> list[Letter]:
        box = self.box(here)
        top = max((one.uids[here] for one in box), default=0)
        found: list[Letter] = []
        for part in wanted.split(","):
            ends = [top if end == "*" else int(end) for end in part.split(":")]
            found += [one for one in box if min(ends) <= one.uids[here] <= max(ends)]
        return found

    async def _fetch(self, connection: Connection, tag: str, here: str, arguments: str) -> str:
        wanted, _, items = arguments.partition(" ")
        if self.refusing and "BODY" in items:
            return f"{tag} {self.refusing}"
        since = re.search(r"CHANGEDSINCE (\d+)", items)
        for letter in self._wanted(here, wanted):
            if since and letter.modseq <= int(since[1]):
                continue
            seq, uid = self.box(here).index(letter) + 1, letter.uids[here]
            if "BODY" in items:
                await connection.send(
                    b"* %d FETCH (UID %d BODY[] {%d}\r\n%b)\r\n" % (seq, uid, len(letter.raw), letter.raw)
                )
            elif "SIZE" in items:
                head = f"X-GM-THRID {letter.thrid} X-GM-MSGID {letter.msgid} X-GM-LABELS ({self._labels(letter, here)})"
                line = (
                    f"* {seq} FETCH ({head} UID {uid} RFC822.SIZE {len(letter.raw)}"
                    f' INTERNALDATE "01-Nov-2026 10:00:00 +0000" FLAGS ({" ".join(sorted(letter.flags))}))\r\n'
                )
                await connection.send(line)
            else:
                labels = f" X-GM-LABELS ({self._labels(letter, here)})" if "LABELS" in items else ""
                await connection.send(f"* {seq} FETCH {self._flags(letter, here, labels)}\r\n")
        return f"{tag} OK Success"

    def _flags(self, letter: Letter, here: str, labels: str = "") -> str:
        flags = " ".join(sorted(letter.flags))
        return f"(UID {letter.uids[here]} MODSEQ ({letter.modseq}){labels} FLAGS ({flags}))"

    def _labels(self, letter: Letter, here: str) -> str:
        hidden = OWN.get(here, ("", here))[1]
        shown = [label for label in sorted(letter.labels) if label != hidden]
        return " ".join('"' + label.replace("\\", "\\\\") + '"' for label in shown)

    def _search(self, here: str, arguments: str) -> list[int]:
        raw = re.search(r'X-GM-RAW "([^"]*)"', arguments)
        if raw:
            return [one.uids[here] for one in self.box(here) if raw[1].encode() in one.raw]
        uids = re.search(r"UID ([\d:*,]+)", arguments)
        found = self._wanted(here, uids[1]) if uids else self.box(here)
        return [one.uids[here] for one in found]


@pytest.fixture
async def gmail() -> AsyncIterator[Gmail]:
    """An account without mail."""
    async with serving(Gmail()) as stub:
        assert isinstance(stub, Gmail)
        yield stub
