"""What mailbus does with an IMAP connection: list, examine, survey, read, idle.

Used by ingest's ImapSource, over connection.py. Nothing here changes a mailbox.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from service.clock import Clock
from service.errors import PeerError, Permanent
from service.imap.connection import Connection, SessionOptions
from service.imap.encode import date, mailbox_argument, uid_set
from service.imap.flagsets import FlagSets
from service.imap.grammar import (
    Condition,
    Exists,
    Expunged,
    FetchData,
    Listed,
    Response,
    Search,
    Status,
    parse_number,
    parse_uid,
)
from service.imap.identity import (
    GMAIL,
    OBJECTID,
    Labelling,
    email_id_of,
    identity_items,
    thread_id_of,
)
from service.imap.message import SurveyedMessage, bodies_in, surveyed_in
from service.imap.names import ListedNames
from service.imap.protocol import Handler, ImapProtocol
from service.imap.refusals import refused_command, throttled
from service.imap.searched import numbers_of
from service.imap.state import Idle
from service.imap.stir import Stir
from service.observe import log, metrics

# What one survey holds; whoever asked for more asks again from there.
SURVEY_LIMIT_ROWS: Final = 40_000
HEADER_LIMIT_BYTES: Final = 1024 * 1024
# Bodies beside what was expected of them: sizes are announced wrong, by little as a rule.
BODIES_SLACK_BYTES: Final = 4 * 1024 * 1024
# A server that ends IDLE at once would have us spin.
IDLE_ENDED_PAUSE_S: Final = 1.0
_MAILBOXID: Final = re.compile(rb"\(([A-Za-z0-9_-]{1,255})\)")


@dataclass(frozen=True, slots=True)
class SelectedMailbox:
    """What EXAMINE said. `uidnext` is 0 where an old server left it out, `highestmodseq` where there is none."""

    name: str
    uidvalidity: int
    uidnext: int
    exists: int
    highestmodseq: int = 0
    # RFC 8474 4.2: what it keeps when it is renamed; empty where the server has none.
    mailbox_id: str = ""


@dataclass(frozen=True, slots=True)
class ListedMailbox:
    """One mailbox of a LIST; attributes in lower case, with their backslash."""

    name: str
    delimiter: str | None
    attributes: frozenset[str]


class Session(Connection):
    """An open connection and the mailbox that is selected on it."""

    def __init__(self, protocol: ImapProtocol, options: SessionOptions, clock: Clock) -> None:
        super().__init__(protocol, options, clock)
        # How Gmail's labels are read in the mailbox; whoever opens it knows which one it is.
        self.labelling = Labelling()
        # The name of the mailbox that is open.
        self.selected = ""
        # Somebody has a reason that the server knows nothing of to end IDLE.
        self.nudged = asyncio.Event()

    def nudge(self) -> None:
        """Have `idle` end soon."""
        self.nudged.set()
        self.protocol.wake()

    # -- mailboxes --------------------------------------------------------------------------------------------

    async def list_mailboxes(self, pattern: str = "*") -> list[ListedMailbox]:
        """All mailboxes whose names match the pattern."""
        found, names = list[ListedMailbox](), ListedNames(utf8=self.utf8)

        def take(response: Response) -> None:
            if isinstance(response, Listed) and (name := names.take(response.name)) is not None:
                found.append(ListedMailbox(name, response.delimiter, response.attributes))

        await self.run("LIST", '""', mailbox_argument(pattern, utf8=self.utf8), handler=take)
        return found

    async def examine(self, mailbox: str, *, parameters: str = "") -> SelectedMailbox:
        """Open a mailbox without changing it (RFC 9051 6.3.3); `parameters` in brackets as RFC 7162 3.1.8 has them.

        Raises Permanent where it cannot be opened, Transient otherwise.
        """
        codes: dict[str, bytes] = {}
        exists = 0

        def take(response: Response) -> None:
            nonlocal exists
            if isinstance(response, Condition) and response.code:
                codes[response.code] = response.argument.encode()
            if isinstance(response, Exists):
                exists = response.count
            # Up to the answer it is of the mailbox as it is being opened; what comes behind is not looked at yet.
            self.stir.clear()

        self.exists, self.selected = 0, mailbox
        self.stir = Stir()
        self.protocol.enter(selected=False)
        more = [parameters] if parameters else []
        answer = await self.ask("EXAMINE", self.named(mailbox), *more, handler=take)
        if answer.status is Status.NO and await self.respelled(mailbox):
            answer = await self.ask("EXAMINE", self.named(mailbox), *more, handler=take)
        if answer.status is not Status.OK:
            raise refused_command("EXAMINE", answer, where=self.where)
        self.protocol.enter(selected=True)
        uidvalidity = parse_uid(codes.get("UIDVALIDITY"))
        if uidvalidity is None:
            raise Permanent(
                "the mailbox has no UIDVALIDITY: what was announced could not be told from what was not",
                where=f"{self.where} {mailbox}",
                remedy="leave it out of `mailboxes`",
            )
        uidnext, highestmodseq = parse_uid(codes.get("UIDNEXT")), parse_number(codes.get("HIGHESTMODSEQ"))
        found = _MAILBOXID.fullmatch(codes.get("MAILBOXID", b""))
        mailbox_id = found[1].decode("ascii") if found is not None else ""
        # What `self.exists` has counted since came behind the answer, and UIDNEXT does not cover it.
        return SelectedMailbox(mailbox, uidvalidity, uidnext or 0, exists, highestmodseq or 0, mailbox_id)

    # -- messages ---------------------------------------------------------------------------------------------

    async def survey(self, first: int, last: int | None) -> list[SurveyedMessage]:
        """UIDs first to last (None: to the end), ascending, the lowest SURVEY_LIMIT_ROWS of them at most.

        RFC 9051 6.4.9: `n:*` gives the last message even where its UID is below n, so it is filtered here.
        """
        return await self._survey(f"{first}:{'*' if last is None else last}", first, last)

    async def survey_last(self) -> list[SurveyedMessage]:
        """The message with the highest UID; empty in an empty mailbox."""
        return await self._survey("*", 1, None)

    async def _survey(self, wanted: str, first: int, last: int | None) -> list[SurveyedMessage]:
        rows, flags = dict[int, SurveyedMessage](), FlagSets()

        def take(response: Response) -> None:
            nonlocal flags
            if not isinstance(response, FetchData):
                return
            # Without a size it is no answer to this command: somebody else changed a flag.
            row = surveyed_in(response, first, last, flags)
            if row is None:
                return
            if more:
                items, labels = response.items, flags.share(self.labelling.read(response.items))
                row = replace(row, email_id=email_id_of(items), thread_id=thread_id_of(items), labels=labels)
            rows[row.uid] = row
            if len(rows) >= 2 * SURVEY_LIMIT_ROWS:
                for highest in sorted(rows)[SURVEY_LIMIT_ROWS:]:
                    del rows[highest]
                flags = FlagSets()

        more = identity_items(self.capabilities)
        answer = await self._survey_with(wanted, more, take)
        if answer.status is Status.BAD and more:
            # Offered and not known after all: done without on this connection.
            log.warning("feature_refused", where=self.where, feature=" ".join(more))
            self.capabilities -= {OBJECTID, GMAIL}
            more = ()
            answer = await self._survey_with(wanted, more, take)
        if answer.status is not Status.OK:
            raise refused_command("FETCH", answer, where=self.where)
        return [rows[uid] for uid in sorted(rows)[:SURVEY_LIMIT_ROWS]]

    async def _survey_with(self, wanted: str, more: Sequence[str], take: Handler) -> Condition:
        items = " ".join(["UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE", *more])
        return await self.ask("FETCH", wanted, f"({items})", prefix="UID", handler=take)

    async def find(self, wanted: str, criteria: str) -> list[Search]:
        """What the criteria find by UID (RFC 9051 6.4.4); `wanted`: all that is wanted of it, ALL or MIN.

        Empty where the server does not say.
        """
        found: list[Search] = []

        def take(response: Response) -> None:
            if isinstance(response, Search):
                found.append(response)

        if "ESEARCH" in self.capabilities:
            # RFC 4731: one number, or spans, instead of a line of a million.
            answer = await self.ask("SEARCH", f"RETURN ({wanted})", criteria, prefix="UID", handler=take)
            if answer.status is Status.NO:
                raise refused_command("SEARCH", answer, where=self.where)
            if answer.status is Status.OK and found:
                return found
            self.without_esearch()
        await self.run("SEARCH", criteria, prefix="UID", handler=take)
        return found

    def without_esearch(self) -> None:
        """Offered and not known after all: done without on this connection."""
        log.warning("feature_refused", where=self.where, feature="ESEARCH")
        self.capabilities -= {"ESEARCH"}

    async def search_lowest(self, criteria: str) -> int | None:
        """The lowest UID that the criteria find, None where there is none."""
        return min(await numbers_of(await self.find("MIN", criteria)), default=None)

    async def lowest_since(self, moment: datetime) -> int | None:
        """The lowest UID of what came on the day of a moment or later, as the server counts days."""
        return await self.search_lowest(f"SINCE {date(moment)}")

    async def fetch_bodies(
        self,
        uids: Sequence[int],
        give: Callable[[int, bytes], None],
        *,
        header_only: bool,
        expected_bytes: int | None = None,
    ) -> None:
        """Read messages, or the first of their headers, and give each as it comes; never marks them read.

        A message that the server does not give is left out; an unasked or repeated one is not given. A NO is no
        error where something was given (Exchange says NO after all the messages but one).
        """
        section = f"BODY.PEEK[HEADER]<0.{HEADER_LIMIT_BYTES}>" if header_only else "BODY.PEEK[]"
        await self.fetch_section(section, uids, give, expected_bytes=expected_bytes)

    async def fetch_section(
        self,
        section: str,
        uids: Sequence[int],
        give: Callable[[int, bytes], None],
        *,
        expected_bytes: int | None = None,
    ) -> None:
        """The same for any one section of the messages (RFC 9051 6.4.5).

        `expected_bytes`, of them all: twice as much and BODIES_SLACK_BYTES is the most that is taken; None where `give`
        keeps nothing, or keeps count itself. Raises PeerError beyond.
        """
        left = set(uids)
        room = None if expected_bytes is None else 2 * expected_bytes + BODIES_SLACK_BYTES
        uid_of: dict[int, int] = {}

        def take(response: Response) -> None:
            nonlocal room
            if isinstance(response, Expunged):
                uid_of.clear()  # the numbers mean other messages now
            if not isinstance(response, FetchData):
                return
            uid = parse_uid(response.items.get("UID"))
            if uid is not None and uid in left:
                uid_of[response.seq] = uid
            # Some servers give a message in two responses, the UID in one of them alone.
            uid = uid if uid is not None else uid_of.get(response.seq)
            body = next(iter(bodies_in(response)), None)
            if uid in left and body is not None:
                left.discard(uid)
                if room is not None:
                    room -= len(body)
                    if room < 0:
                        raise PeerError("far more of the messages than their sizes", where=self.where)
                give(uid, body)

        answer = await self.ask("FETCH", uid_set(uids), f"(UID {section})", prefix="UID", handler=take)
        if throttled(answer):
            raise refused_command("FETCH", answer, where=self.where)
        if answer.status is not Status.OK:
            log.info("fetch_refused", where=self.where, missing=len(left), code=answer.code)

    async def noop(self) -> None:
        """RFC 9051 6.1.2: hear what is new."""
        await self.run("NOOP")

    async def idle(self, max_s: float) -> float | None:
        """Wait in IDLE until there are more messages, something became of them or a nudge comes, for `max_s` at most.

        Gives the moment (monotonic) of the notice, None without one. Raises PeerError where the connection is
        dead: `+` or the answer to DONE did not come in time (whatever happened since was not heard: resync).
        """
        noticed: list[float] = []

        def take(response: Response) -> None:
            # Compared with the moment before: one gone and one come leaves the count as it was.
            before = self.exists
            self.count(response)
            if (self.exists > before or self.stir) and not noticed:
                noticed.append(self.clock.monotonic())

        protocol = self.protocol
        protocol.begin_idle(take)
        await self._in_time(lambda: protocol.idle is not Idle.ASKED)
        if protocol.idle is Idle.ON:
            await protocol.wait_idle(lambda: bool(noticed) or self.nudged.is_set(), max_s)
        if protocol.idle is Idle.ON:
            protocol.send_done()
            await self._in_time(lambda: False)
            return noticed[0] if noticed else None
        # The server ended it, or refused it.
        if protocol.idle_answer().status is not Status.OK:
            log.warning("idle_refused", where=self.where, code=protocol.idle_answer().code)
            self.capabilities -= {"IDLE"}
        elif not noticed:
            await self.clock.sleep(IDLE_ENDED_PAUSE_S)
        return noticed[0] if noticed else None

    async def _in_time(self, ready: Callable[[], bool]) -> None:
        if not await self.protocol.wait_idle(ready, self.options.reply_s):
            metrics.IDLE_STALE.inc()
            failure = PeerError(f"IDLE is dead: no answer in {self.options.reply_s:g} s", where=self.where)
            self.protocol.fail(failure)
            raise failure
