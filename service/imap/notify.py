"""One connection that hears of all mailboxes: NOTIFY (RFC 5465), asked for, and what comes unasked → news.

Used by service/boxes over a Session that idles on a mailbox of its own. What a server says in answer to STATUS and LIST
is no news; all else that it says of other mailboxes is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from service.imap.connection import ignore
from service.imap.encode import decode_mailbox
from service.imap.grammar import Condition, Listed, Response, Status, StatusData, Value
from service.imap.overview import Figures, figures_in
from service.imap.refusals import refused_command, throttled
from service.imap.session import Session
from service.observe import log

# RFC 5465 5: flags need both of the others. 6.1, selected-delayed: no EXPUNGE while numbers are being asked about; and
# without naming the selected mailbox nothing would be said of it, in IDLE either (4).
SELECTED: Final = "(selected-delayed (MessageNew MessageExpunge FlagChange))"
OTHERS: Final = "(personal (MessageNew MessageExpunge FlagChange MailboxName))"


@dataclass(frozen=True, slots=True)
class StatusNews:
    """How a mailbox stands (RFC 5465 5.1-5.3); a server says what has changed of it, and may leave out the rest.

    `asked`: it was said with the answer to NOTIFY, whether anything has changed or not.
    """

    mailbox: str
    figures: Figures
    asked: bool = False


@dataclass(frozen=True, slots=True)
class NamesNews:
    """A mailbox came, went, or was renamed: then `former` is what it was called (RFC 5465 5.4)."""

    mailbox: str
    former: str = ""


@dataclass(frozen=True, slots=True)
class NewsMissing:
    """Some news was not told. `ended`: none will be until it is asked for anew (RFC 5465 5.8)."""

    ended: bool


News: TypeAlias = StatusNews | NamesNews | NewsMissing


async def notify(session: Session, heard: Callable[[News], None], lost: Callable[[], None]) -> set[str] | None:
    """Have the server tell what becomes of all mailboxes, and how each stands now; `lost`: the connection is over.

    Gives the names of those that it tells of, the selected one not among them; None where it refuses. Raises Transient.
    """
    told: set[str] = set()
    answered = False

    def understand(response: Response) -> None:
        match news_of(response, utf8=session.utf8):
            case StatusNews() as news if not answered:
                told.add(news.mailbox)
                heard(replace(news, asked=True))
            case None:
                pass
            case news:
                heard(news)

    # Before it is asked: what comes in one piece with the answer is news as well.
    session.news, session.protocol.lost = understand, lost
    answer = await session.ask("NOTIFY", "SET", "STATUS", SELECTED, OTHERS)
    answered = True
    if answer.status is Status.OK:
        return told
    session.news, session.protocol.lost = ignore, lambda: None
    # Its text may well be "too many".
    if throttled(answer) and answer.code != "NOTIFICATIONOVERFLOW":
        raise refused_command("NOTIFY", answer, where=session.where)
    # Offered and not to be had, or not for so many mailboxes: done without on this connection.
    log.warning("feature_refused", where=session.where, feature="NOTIFY")
    session.capabilities -= {"NOTIFY"}
    return None


async def notify_selected(session: Session) -> None:
    """Have the server tell of the mailbox that is open, as it does without NOTIFY. Raises Transient."""
    answer = await session.ask("NOTIFY", "SET", SELECTED)
    if answer.status is not Status.OK:
        session.abort()  # a new connection hears of it


def news_of(response: Response, *, utf8: bool) -> News | None:
    """What a response says of mailboxes that are not selected; None where it says nothing of them."""
    match response:
        case StatusData(name, items):
            return StatusNews(decode_mailbox(name, utf8=utf8), figures_in(items))
        case Listed(name=name, more=more):
            former = _former(more)
            return NamesNews(decode_mailbox(name, utf8=utf8), decode_mailbox(former, utf8=utf8) if former else "")
        case Condition(code="NOTIFICATIONOVERFLOW"):
            return NewsMissing(ended=True)
        case Condition(tag="", status=Status.NO):
            # Dovecot: "NOTIFY error, some events may have got lost".
            return NewsMissing(ended=False)
        case _:
            return None


def _former(more: Sequence[Value]) -> bytes:
    """RFC 5465 5.4: `("OLDNAME" ("name"))` in the extended data of LIST (RFC 5258 6)."""
    match more:
        case [[bytes(tag), [bytes(name)]]] if tag.upper() == b"OLDNAME":
            return name
        case _:
            return b""
