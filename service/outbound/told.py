"""What a report or a complaint says → of whom of a request it speaks. Pure. Used by returned.py.

What it names anybody may have written: a request's own recipients count.
"""

import re
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from service.contract import Action, EmailAddress, EmailHeader, Extension, Kind, Original, Report, State
from service.meaning import is_by_program
from service.outbound.proof import Known
from service.outbound.retry import Phase
from service.outbound.sends import SendRecord

# Fields in which servers keep RCPT TO.
_ENVELOPE: Final = frozenset(("delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "x-rcpt-to"))


class _Part(msgspec.Struct):
    """What counts of a part."""

    type: str


class Announced(msgspec.Struct):
    """What counts of an announced mail."""

    mailbus: Extension
    to: list[EmailAddress] | None = None
    from_: list[EmailAddress] | None = msgspec.field(default=None, name="from")
    headers: list[EmailHeader] = []
    attachments: list[_Part] = []


# RFC 5965 7.3 and RFC 6650 5.3: what a reader says against a mail. `not-spam` is said for it (RFC 6430), `auth-failure`
# and `dmarc` are told of mail that nobody complained about (RFC 6591).
_COMPLAINTS: Final = frozenset(("abuse", "fraud", "virus", "other", "opt-out"))
# RFC 3463 3.4, 3.7, 3.8: what is wrong with a system, a mail or its sender says nothing of an address.
_NOT_OF_ADDRESSES: Final = ("3", "6", "7")
# RFC 3463 3.2: nor does what is wrong with the sender's address.
_OF_SENDERS: Final = ("1.7", "1.8")
# RFC 3461 4: xtext, in which some servers leave Original-Recipient.
_XTEXT: Final = re.compile(r"\+([0-9A-F]{2})")


def is_told(said: Extension) -> bool:
    """Whether it is a state of a request: that a mail arrived, or may arrive yet, is none."""
    if said.kind is Kind.COMPLAINT:
        return (said.feedback_type or "abuse").lower() in _COMPLAINTS
    return said.kind is Kind.BOUNCE


def may_suppress(announced: Announced) -> bool:
    """Whether somebody may be put on the list for it.

    A bounce must be a mail server's, for people write of bounces. And say of nobody that he got the mail: else the
    address led to several, of whom one is gone.
    """
    said = announced.mailbus
    if said.kind is not Kind.BOUNCE:
        return True
    kinds = [part.type for part in announced.attachments]
    failed = all(one.action is Action.FAILED for one in said.reports or ())
    return failed and is_by_program(announced.headers, announced.from_ or [], kinds)


def is_for_good(report: Report | UnsetType) -> bool:
    """Whether a server refused the address for good, by words and by code (RFC 3463 2, RFC 5321 4.2.1).

    Words alone are said of senders, links and attachments as well, and by servers whose directory is away.
    """
    if report is UNSET or report.hard is not True:
        return False
    status, code = report.status or "", report.reply_code or 0
    if 400 <= code < 500 or (not status and code < 500):
        return False
    if not status:
        return True
    return status.startswith("5") and status[2] not in _NOT_OF_ADDRESSES and status[2:] not in _OF_SENDERS


def is_final(report: Report | UnsetType, recipient: str) -> bool:
    """Whether what a report says of an address is said of this one, and not of another that its mail was passed on to.

    An alias, a list or a forward goes on to others (RFC 3464 2.3.2): that one of them is gone says nothing of it.
    """
    return report is UNSET or report.recipient.lower() == recipient.lower()


def went_to(known: Known, record: SendRecord) -> list[str]:
    """Whom the relay took the mail for, as far as the proof tells. A report may come before the outcome is stored.

    A proof for one recipient is in his mail alone.
    """
    went = dict.fromkeys([*record.taken, *_under_way(record)])
    return [one for one in went if not known.mark or known.is_of(one)]


def names_of(reports: Iterable[Report | UnsetType]) -> set[str]:
    """Whom reports name, in lower case."""
    said = [one for one in reports if one is not UNSET]
    return {name.lower() for one in said for name in (one.recipient, *_originals(one))}


def doubted(known: Known, record: SendRecord, names: AbstractSet[str]) -> list[str]:
    """Of whom reports that name these prove that the mail went out for him, and nobody knew it.

    Where another has the mail for certain, he could have written the report: then it proves nothing of the others.
    """
    # Also while an attempt is under way that is not about him: of a mailing, another part.
    unsure = list(dict.fromkeys([*_under_way(record), *record.doubted]))
    if known.mark:
        return [who for who in unsure if known.is_of(who)]
    if not set(record.taken) <= set(unsure):
        return []
    if len(unsure) == 1:
        return unsure  # whatever he is called behind the relay
    return [who for who in unsure if who.lower() in names]


def _under_way(record: SendRecord) -> list[str]:
    """Whose dot may be out just now."""
    return [who for who in record.open if who not in record.refused] if record.phase is Phase.INTENT else []


def named(said: Extension) -> dict[str, Report | UnsetType]:
    """Whom a report names, with what it says of them; "" where it names nobody."""
    if said.kind is Kind.BOUNCE:
        failed = [one for one in (said.reports or ()) if one.action is Action.FAILED]
        return {one.recipient: one for one in failed} or {"": UNSET}
    # RFC 5965 3.2: a provider need not say who complained.
    original = said.original or Original()
    return dict.fromkeys(original.recipients or ("",), UNSET)


def meant(
    known: Known, record: SendRecord, state: State, names: dict[str, Report | UnsetType], *, alone: bool, proved: bool
) -> dict[str, Report | UnsetType]:
    """Of whom a report speaks: a request's own recipients, "" for nobody that is known.

    Names are what anybody may have made up, or what somebody is called behind an alias. `alone`: it can be about no
    other request; `proved`: it is about this one.
    """
    went = {one.lower(): one for one in went_to(known, record)}
    found: dict[str, Report | UnsetType] = {}
    for who, report in names.items():
        recipient = _recipient(went, who, report)
        if recipient is None and alone and len(went) == 1:
            (recipient,) = went.values()  # it was passed on, or the report names nobody
        if recipient is not None:
            unsaid = report is UNSET and state is State.BOUNCED
            said = Report(recipient, Action.FAILED) if unsaid else report
            # Of an address that led to several it is for good only if it is so for all.
            if recipient not in found or (is_for_good(found[recipient]) and not is_for_good(said)):
                found[recipient] = said
        elif proved if who else alone and (report is not UNSET or state is not State.BOUNCED):
            found.setdefault("", report)
    return found


def _recipient(went: dict[str, str], who: str, report: Report | UnsetType) -> str | None:
    originals = [] if report is UNSET else _originals(report)
    return next((went[one.lower()] for one in (*originals, who) if one.lower() in went), None)


def _originals(report: Report) -> list[str]:
    """What the sender wrote, as it stands there and as RFC 3461 4 may have written it."""
    original = report.original_recipient
    if original is UNSET:
        return []
    return [original, _XTEXT.sub(lambda found: chr(int(found[1], 16)), original)]


def addresses(announced: Announced) -> Iterator[str]:
    """Where a report was sent to: its To, and what servers on the way say of its envelope."""
    yield from (one.email for one in announced.to or ())
    yield from (field.value for field in announced.headers if field.name.lower() in _ENVELOPE)
