"""An account's mailboxes as the server lists them, with what it says of their roles and how much they hold.

Used by service/commands. RFC 9051 6.3.9, RFC 5258 (LIST-EXTENDED), RFC 6154 (SPECIAL-USE), RFC 5819 (LIST-STATUS).
"""

from dataclasses import dataclass
from typing import Final

from service.imap.encode import decode_mailbox
from service.imap.grammar import Listed, Response, StatusData, parse_number
from service.imap.names import LIST_LIMIT, ListedNames
from service.imap.refusals import Refused
from service.imap.roles import selectable
from service.imap.session import ListedMailbox
from service.imap.writing import WritingSession

# Without LIST-STATUS each mailbox is one more question: as many as a few seconds allow.
STATUS_LIMIT: Final = 500
TOTALS: Final = ("MESSAGES", "UNSEEN")


@dataclass(frozen=True, slots=True)
class Totals:
    """How many messages a mailbox has, and how many of them without \\Seen."""

    messages: int
    unseen: int


@dataclass(frozen=True, slots=True)
class _Answer:
    mailboxes: list[ListedMailbox]
    totals: dict[str, Totals]


async def list_mailboxes(session: WritingSession) -> list[ListedMailbox]:
    """All mailboxes, LIST_LIMIT at most. Raises Refused."""
    return (await _list(session, totals=False)).mailboxes


async def list_totals(session: WritingSession, mailboxes: list[ListedMailbox]) -> dict[str, Totals]:
    """By name: of all of them where the server says it with its list, of the first STATUS_LIMIT otherwise."""
    if session.offers("LIST-STATUS"):
        return (await _list(session, totals=True)).totals
    found: dict[str, Totals] = {}
    for mailbox in [one for one in mailboxes if selectable(one)][:STATUS_LIMIT]:
        try:
            items = await session.status(mailbox.name, *TOTALS)
        except Refused:
            continue  # it vanished, or nobody may look into it
        found[mailbox.name] = Totals(items.get("MESSAGES", 0), items.get("UNSEEN", 0))
    return found


async def _list(session: WritingSession, *, totals: bool) -> _Answer:
    mailboxes: list[ListedMailbox] = []
    names = ListedNames(utf8=session.utf8)
    found: dict[str, Totals] = {}

    def take(response: Response) -> None:
        if isinstance(response, Listed) and (name := names.take(response.name)) is not None:
            mailboxes.append(ListedMailbox(name, response.delimiter, response.attributes))
        elif isinstance(response, StatusData) and len(found) < LIST_LIMIT:
            messages, unseen = (parse_number(response.items.get(item)) or 0 for item in TOTALS)
            found[decode_mailbox(response.name, utf8=session.utf8)] = Totals(messages, unseen)

    extended = session.offers("LIST-EXTENDED")
    options = ["SPECIAL-USE"] if extended and session.offers("SPECIAL-USE") else []
    options += [f"STATUS ({' '.join(TOTALS)})"] if totals else []
    returned = [f"RETURN ({' '.join(options)})"] if options else []
    await session.must("LIST", '""', '"*"', *returned, handler=take)
    session.learn_names(names)
    return _Answer(mailboxes, found)
