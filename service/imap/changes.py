"""What became of known messages: asked of the server in the best way that it offers. RFC 7162.

Used by ingest's ImapSource, over a Session. What a server offers and then refuses is done without on this connection.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from service.contract import Sync
from service.errors import PeerError
from service.imap.connection import ignore
from service.imap.encode import uid_set
from service.imap.flagsets import FlagSets
from service.imap.grammar import (
    Enabled,
    FetchData,
    Response,
    Status,
    Vanished,
    parse_modseq,
    parse_uid,
)
from service.imap.identity import NO_LABELS, Labels, label_items
from service.imap.protocol import Handler
from service.imap.refusals import BadCommand, refused_command
from service.imap.searched import runs_found, runs_gone
from service.imap.session import SelectedMailbox, Session
from service.observe import log

# What one answer may hold of messages that nobody asked for by number: a window has 50,000 known ones at most.
ROWS_LIMIT: Final = 100_000


@dataclass(frozen=True, slots=True)
class FlagsRow:
    """A message's flags; `modseq` is 0 where the server has none."""

    uid: int
    flags: frozenset[str]
    modseq: int
    labels: Labels = NO_LABELS


@dataclass(frozen=True, slots=True)
class FlagsFound:
    """`vanished`: ascending, None where the server did not say; `whole`: the rows are all messages that there are."""

    rows: list[FlagsRow]
    vanished: list[range] | None
    whole: bool


class Changes:
    """One session's way of telling. `sync` is what it is in the mailbox that is open, `refused` the names of what was
    offered and refused."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sync = Sync.NONE
        self.refused: list[str] = []
        self._offered = Sync.NONE

    async def open(self, mailbox: str) -> SelectedMailbox:
        """EXAMINE with what the server offers switched on. Raises as Session.examine does."""
        session = self.session
        if self._offered is Sync.NONE:
            self._offered = await self._enable()
        self.sync = self._offered
        selected: SelectedMailbox | None = None
        if self.sync is Sync.CONDSTORE:
            try:
                # RFC 7162 3.1.8: says HIGHESTMODSEQ, and makes MODSEQ part of what is told unasked.
                selected = await session.examine(mailbox, parameters="(CONDSTORE)")
            except BadCommand:
                self._refuse("CONDSTORE")
        if selected is None:
            selected = await session.examine(mailbox)
        # RFC 7162 3.1.2.2: NOMODSEQ: this mailbox keeps none, whatever the server offers.
        if not selected.highestmodseq:
            self.sync = Sync.SNAPSHOT
        return selected

    async def _enable(self) -> Sync:
        session = self.session
        names: set[str] = set()

        def take(response: Response) -> None:
            if isinstance(response, Enabled):
                names.update(response.names)

        # RFC 7162 3.2.3: QRESYNC counts once it is enabled; it brings CONDSTORE with it.
        if {"QRESYNC", "ENABLE"} <= session.capabilities:
            answer = await session.ask("ENABLE", "QRESYNC", handler=take)
            if answer.status is Status.OK and "QRESYNC" in names:
                return Sync.QRESYNC
            self._refuse("QRESYNC")
        # RFC 7162 3.2.3: a server with QRESYNC has CONDSTORE, whether it says so or not.
        return Sync.CONDSTORE if session.capabilities & {"CONDSTORE", "QRESYNC"} else Sync.SNAPSHOT

    def _refuse(self, name: str) -> None:
        log.warning("feature_refused", where=self.session.where, feature=name)
        self.refused.append(name)
        self.sync = self._offered = Sync.SNAPSHOT

    async def flags(self, first: int, last: int, since: int) -> FlagsFound:
        """The flags of UIDs first to last that changed after the modseq `since`; of all of them where it is 0.

        Raises Transient.
        """
        vanished: list[bytes] = []

        def gone(response: Response) -> None:
            if isinstance(response, Vanished) and response.earlier:
                vanished.append(response.uids)

        modifier: tuple[str, ...] = ()
        if since and self.sync is Sync.QRESYNC:
            # RFC 7162 3.2.6: what was expunged since then comes with it.
            modifier = (f"(CHANGEDSINCE {since} VANISHED)",)
        elif since and self.sync is Sync.CONDSTORE:
            modifier = (f"(CHANGEDSINCE {since})",)

        def asked(_seq: int, uid: int) -> bool:
            return first <= uid <= last

        rows = await self._rows(f"{first}:{last}", modifier, gone, asked, prefix="UID")
        if rows is None:
            self._refuse("CHANGEDSINCE")
            modifier = ()
            rows = await self._rows(f"{first}:{last}", modifier, gone, asked, prefix="UID")
        if rows is None:
            raise PeerError("FETCH of flags is refused", where=self.session.where)
        told = bool(modifier) and self.sync is Sync.QRESYNC
        runs = await runs_gone(vanished, first, last, where=self.session.where) if told else None
        return FlagsFound(rows, runs, not modifier)

    async def flags_of(self, seqs: set[int]) -> list[FlagsRow]:
        """The flags of messages by number, just after the server has told of them.

        Numbers move with EXPUNGE alone, which a server may not say during this command (RFC 9051 7.5.1).
        """
        rows = await self._rows(uid_set(seqs), (), ignore, lambda seq, _uid: seq in seqs, prefix=None)
        return rows or []

    async def _rows(
        self,
        wanted: str,
        modifier: tuple[str, ...],
        other: Handler,
        asked: Callable[[int, int], bool],
        *,
        prefix: str | None,
    ) -> list[FlagsRow] | None:
        """What was asked; the rest that comes is noted as unasked. None where the server answers BAD."""
        session = self.session
        rows, flags = dict[int, FlagsRow](), FlagSets()
        more = label_items(session.capabilities)

        def take(response: Response) -> None:
            other(response)
            if not isinstance(response, FetchData) or "FLAGS" not in response.items:
                return
            uid = parse_uid(response.items.get("UID"))
            if uid is None or not asked(response.seq, uid):
                return
            modseq = parse_modseq(response.items.get("MODSEQ"))
            labels = flags.share(session.labelling.read(response.items)) if more else NO_LABELS
            rows[uid] = FlagsRow(uid, flags.read(response.items["FLAGS"]), modseq, labels)
            if len(rows) > ROWS_LIMIT:
                raise PeerError(f"the flags of over {ROWS_LIMIT} messages at once")

        session.stir.asked = asked
        try:
            items = f"({' '.join(['UID', 'FLAGS', *more])})"
            answer = await session.ask("FETCH", wanted, items, *modifier, prefix=prefix, handler=take)
        finally:
            session.stir.asked = None
        if answer.status is Status.BAD:
            return None
        if answer.status is not Status.OK:
            raise refused_command("FETCH", answer, where=session.where)
        return list(rows.values())

    async def reach(self, first: int, last: int, limit: int) -> int:
        """How far from `first` so many messages go, `last` at most; so many UIDs where the server does not say."""
        try:
            found = await self.present(first, last)
        except (PeerError, BadCommand) as exc:
            if self.session.protocol.failure is not None:
                raise
            log.debug("search_unreadable", where=self.session.where, error=str(exc))
            return min(last, first + limit - 1)
        left = limit
        for run in found:
            if len(run) >= left:
                return run[left - 1]
            left -= len(run)
        return last

    async def present(self, first: int, last: int) -> list[range]:
        """Which UIDs of first to last there are. Raises PeerError where the server does not say, Transient."""
        session = self.session
        found = await session.find("ALL", f"UID {first}:{last}")
        if not found:
            # Nothing at all would mean that everything is gone.
            raise PeerError("SEARCH was answered without a result", where=session.where)
        return await runs_found(found, first, last, where=session.where)
