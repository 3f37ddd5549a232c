"""All mailboxes of an account at a glance: what there is, and figures by which is seen that one has moved.

Used by service/boxes. RFC 9051 6.3.9 (LIST), 6.3.11 (STATUS), RFC 6154 (SPECIAL-USE), RFC 5819 (LIST-STATUS),
RFC 7162 3.1.7 (HIGHESTMODSEQ).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from service.contract import mailbox_name
from service.imap.encode import decode_mailbox
from service.imap.grammar import Listed, Response, Status, StatusData, Value, parse_number
from service.imap.names import LIST_LIMIT, ListedNames
from service.imap.refusals import refused_command, throttled
from service.imap.roles import selectable
from service.imap.session import ListedMailbox, Session


@dataclass(frozen=True, slots=True)
class Figures:
    """What STATUS says of a mailbox; None for what it did not say."""

    uidvalidity: int | None = None
    uidnext: int | None = None
    messages: int | None = None
    modseq: int | None = None
    unseen: int | None = None

    def differ(self, other: "Figures") -> bool:
        """Whether one of them is another, of those that both know."""
        pairs = (
            (self.uidvalidity, other.uidvalidity),
            (self.uidnext, other.uidnext),
            (self.messages, other.messages),
            (self.modseq, other.modseq),
            (self.unseen, other.unseen),
        )
        return any(one is not None and two is not None and one != two for one, two in pairs)

    def behind(self, told: "Figures") -> bool:
        """Whether what was told of the same mailbox is newer than these, as far as that can be known."""
        if (told.uidvalidity or self.uidvalidity) != self.uidvalidity or (told.uidnext or 0) > (self.uidnext or 0):
            return True
        if told.modseq is not None and self.modseq is not None:
            return told.modseq > self.modseq
        return told.messages is not None and told.messages != self.messages

    def over(self, before: "Figures | None") -> "Figures":
        """These, with what they do not say as it was before."""
        if before is None:
            return self

        def last(now: int | None, then: int | None) -> int | None:
            return then if now is None else now

        return Figures(
            last(self.uidvalidity, before.uidvalidity),
            last(self.uidnext, before.uidnext),
            last(self.messages, before.messages),
            last(self.modseq, before.modseq),
            last(self.unseen, before.unseen),
        )


@dataclass(slots=True)
class Overview:
    """`figures` by name, of those that the server said with its list; `whole`: these are all mailboxes."""

    mailboxes: list[ListedMailbox] = field(default_factory=list)
    figures: dict[str, Figures] = field(default_factory=dict)
    whole: bool = True


# RFC 8474 7: objectid.
_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,255}")
_ITEMS: Final = ("MESSAGES", "UIDNEXT", "UIDVALIDITY")


def _items(session: Session) -> str:
    # Without modseq nothing else tells that flags changed; of those \Seen is the one that people change.
    more = "HIGHESTMODSEQ" if session.capabilities & {"CONDSTORE", "QRESYNC"} else "UNSEEN"
    # No MAILBOXID (RFC 8474 4.3): Cyrus 3.6 gives bytes without meaning in LIST-STATUS, brackets and quotes among them.
    return f"({' '.join((*_ITEMS, more))})"


def figures_in(items: Mapping[str, Value]) -> Figures:
    """The items of a STATUS response, asked for or not."""

    def number(name: str) -> int | None:
        return parse_number(items[name]) if name in items else None

    return Figures(
        number("UIDVALIDITY"),
        number("UIDNEXT"),
        number("MESSAGES"),
        number("HIGHESTMODSEQ"),
        number("UNSEEN"),
    )


async def overview(session: Session) -> Overview:
    """LIST, with figures where one command gives both. Raises Transient."""
    found = Overview()
    names = ListedNames(utf8=session.utf8)

    def take(response: Response) -> None:
        if isinstance(response, Listed):
            if (name := names.take(response.name)) is not None:
                found.mailboxes.append(ListedMailbox(name, response.delimiter, response.attributes))
        elif isinstance(response, StatusData) and len(found.figures) < LIST_LIMIT:
            found.figures[decode_mailbox(response.name, utf8=session.utf8)] = figures_in(response.items)

    options = ["SPECIAL-USE"] if session.offers("LIST-EXTENDED") and session.offers("SPECIAL-USE") else []
    options += [f"STATUS {_items(session)}"] if session.offers("LIST-STATUS") else []
    returned = [f"RETURN ({' '.join(options)})"] if options else []
    answer = await session.ask("LIST", '""', '"*"', *returned, handler=take)
    if answer.status is Status.BAD and options:
        # Offered and not known after all: done without on this connection.
        session.capabilities -= {"LIST-STATUS", "LIST-EXTENDED"}
        return await overview(session)
    if answer.status is not Status.OK:
        raise refused_command("LIST", answer, where=session.where)
    session.learn_names(names)
    found.whole = names.whole
    return found


async def left_out(session: Session, names: Iterable[str]) -> set[str]:
    """Of names that a list is without: those that the server has all the same, asked one by one. Raises Transient."""
    found: set[str] = set()

    def take(response: Response) -> None:
        if isinstance(response, Listed):
            one = ListedMailbox(
                decode_mailbox(response.name, utf8=session.utf8), response.delimiter, response.attributes
            )
            found.update([mailbox_name(one.name)] if selectable(one) else ())

    wanted = set(names)
    for name in wanted:
        await session.ask("LIST", '""', session.named(name), handler=take)
    return found & wanted


async def mailbox_id_of(session: Session, mailbox: str) -> str:
    """RFC 8474 4.3: by what a mailbox is known whatever it is called; "" where that is not said. Raises Transient.

    To be asked of the one that is open: of any other Cyrus 3.6 gives bytes without meaning.
    """
    found: list[Value] = []

    def take(response: Response) -> None:
        if not isinstance(response, StatusData):
            return
        if "MAILBOXID" in response.items:
            found.append(response.items["MAILBOXID"])
        else:
            session.news(response)  # of another: nobody asked

    await session.ask("STATUS", session.named(mailbox), "(MAILBOXID)", handler=take)
    match found:
        case [[bytes(id)]] if _ID.fullmatch(id) is not None:
            return id.decode("ascii")
        case _:
            return ""


async def figures_of(session: Session, mailbox: str) -> Figures | None:
    """STATUS of one mailbox; None where the server refuses it. Raises Transient."""
    found: dict[str, Figures] = {}

    def take(response: Response) -> None:
        if isinstance(response, StatusData):
            found[mailbox_name(decode_mailbox(response.name, utf8=session.utf8))] = figures_in(response.items)
            if len(found) > 1:
                session.news(response)  # of another: nobody asked

    answer = await session.ask("STATUS", session.named(mailbox), _items(session), handler=take)
    if answer.status is Status.NO and await session.respelled(mailbox):
        answer = await session.ask("STATUS", session.named(mailbox), _items(session), handler=take)
    if throttled(answer):
        raise refused_command("STATUS", answer, where=session.where)
    if answer.status is not Status.OK:
        return None
    # A server may write the name otherwise than it was asked.
    return found.get(mailbox_name(mailbox), next(iter(found.values()), None))
