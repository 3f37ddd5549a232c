"""What a report or a complaint says → of whom of a request it speaks. Pure. Used by returned.py.

What it names anybody may have written: a request's own recipients count.
"""

from collections.abc import Iterator, Sequence
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


def may_suppress(announced: Announced) -> bool:
    """Whether nobody is put on a list for what a person wrote: of a bounce, that a mail server made it."""
    kinds = [part.type for part in announced.attachments]
    return announced.mailbus.kind is not Kind.BOUNCE or is_by_program(announced.headers, announced.from_ or [], kinds)


def went_to(known: Known, record: SendRecord) -> list[str]:
    """Whom the relay took the mail for, as far as the proof tells."""
    return [one for one in record.taken if known.is_of(one)] if known.mark else list(record.taken)


def doubted(known: Known, record: SendRecord, reports: Sequence[Report]) -> list[str]:
    """Of whom such reports prove that the mail went out for him, and nobody knew it.

    Where another has the mail for certain, he could have written the report: then it proves nothing of the others.
    """
    if known.mark:
        return [who for who in record.doubted if known.is_of(who)]
    if not set(record.taken) <= set(record.doubted):
        return []
    if len(record.doubted) == 1:
        return record.doubted  # whatever he is called behind the relay
    names = {one.lower() for report in reports for one in (report.recipient, report.original_recipient or "")}
    return [who for who in record.doubted if who.lower() in names]


def named(said: Extension, known: Known) -> dict[str, Report | UnsetType]:
    """Whom a report names, with what it says of them; "" where it names nobody."""
    if said.kind is Kind.BOUNCE:
        failed = [one for one in (said.reports or ()) if one.action is Action.FAILED]
        return {_who(known, one): one for one in failed} or {"": UNSET}
    # RFC 5965 3.2: a provider need not say who complained.
    original = said.original or Original()
    return dict.fromkeys(original.recipients or ("",), UNSET)


def meant(
    record: SendRecord, state: State, named: dict[str, Report | UnsetType], *, alone: bool
) -> dict[str, Report | UnsetType]:
    """Of whom a report without a proof speaks: a request's own recipients, so that nobody can make up others.

    `alone`: it can be about no other request.
    """
    # A bounce may come before the outcome is stored.
    went = {one.lower(): one for one in (*record.taken, *(record.open if record.phase is Phase.INTENT else ()))}
    found: dict[str, Report | UnsetType] = {}
    for who, report in named.items():
        original = "" if report is UNSET else report.original_recipient or ""
        recipient = went.get(who.lower()) or went.get(original.lower())
        if recipient is None and alone and len(went) == 1:
            (recipient,) = went.values()  # it was passed on, or the report names nobody
        if recipient is not None:
            unsaid = report is UNSET and state is State.BOUNCED
            found.setdefault(recipient, Report(recipient, Action.FAILED) if unsaid else report)
        elif not who and alone:
            found[""] = report
    return found


def addresses(announced: Announced) -> Iterator[str]:
    """Where a report was sent to: its To, and what servers on the way say of its envelope."""
    yield from (one.email for one in announced.to or ())
    yield from (field.value for field in announced.headers if field.name.lower() in _ENVELOPE)


def _who(known: Known, report: Report) -> str:
    """The recipient as the request had it, where the mail was passed on and the report says both."""
    original = report.original_recipient
    return original if original is not UNSET and known.is_of(original) else report.recipient
