"""A bounce or a complaint that was announced → the status of the request it is about: `bounced`, `complained`.

Handed to ingest, which calls it for such a mail before its event is committed: so none is forgotten over a crash, and
one that is told again has the same `ce-id`. Only what mailbus itself sent along counts (proof.py): strangers cannot
make it, so a forged bounce changes nothing (RFC 3464 4.2 warns of them). Whoever got the mail can: of several
recipients of one mail one may speak for another. What is proved puts the recipient on the account's list of
suppressions.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from service.bus import Bus, Conflict
from service.clock import Clock
from service.contract import (
    Action,
    DeliveryStatus,
    EmailAddress,
    EmailHeader,
    EmailSubmission,
    Extension,
    Kind,
    Original,
    Report,
    State,
    encode,
    event_id,
)
from service.errors import Transient
from service.observe import log
from service.outbound.proof import Known, known_by_address, known_of
from service.outbound.retry import Phase
from service.outbound.sends import SendRecord, Sends, StoredStatus
from service.outbound.settle import schedule
from service.outbound.status import publish
from service.outbound.suppressions import Suppressions

# Another process may write the same record at the same time; more often than this is no accident.
TRIES: Final = 5
# A record must fit into one message: who came back is remembered for so many, and told again beyond.
REMEMBERED: Final = 1000


class _Announced(msgspec.Struct):
    """What counts of an announced mail."""

    mailbus: Extension
    to: list[EmailAddress] | None = None
    headers: list[EmailHeader] = []


# Fields in which servers keep RCPT TO.
_ENVELOPE: Final = frozenset(("delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "x-rcpt-to"))
_DECODER: Final = msgspec.json.Decoder(_Announced)


class Returned:
    """Finds the requests that mails came back for. `suppresses`: whether an account's list takes those who are proved.

    Of a mail to several anyone of them could say that it came back from another: nobody is put on the list for it.
    """

    def __init__(self, bus: Bus, clock: Clock, *, suppresses: Callable[[str], bool]) -> None:
        self._bus = bus
        self._clock = clock
        self._suppresses = suppresses
        self._sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), clock)

    async def heard(self, payload: bytes) -> None:
        """`payload`: the body of a `received` event of kind bounce or complaint. Raises Transient."""
        announced = _DECODER.decode(payload)
        said, secret = announced.mailbus, await self._sends.secret()
        original = said.original or Original()
        id, envelope_id = original.message_id or "", original.envelope_id or ""
        known = known_of(id, secret) or known_of(envelope_id, secret) or known_by_address(_addresses(announced), secret)
        if known is None:
            return
        if said.kind is Kind.BOUNCE:
            failed = [one for one in (said.reports or ()) if one.action is Action.FAILED]
            await self._tell(known, id, State.BOUNCED, {_who(known, one): one for one in failed} or {"": UNSET})
        elif said.kind is Kind.COMPLAINT:
            # RFC 5965 3.2: a provider need not say who complained.
            who: Iterable[str] = original.recipients or ("",)
            await self._tell(known, id, State.COMPLAINED, dict.fromkeys(who, UNSET))

    async def _tell(
        self, known: Known, message_id: str, state: State, about: dict[str, Report] | dict[str, UnsetType]
    ) -> None:
        key = known.key
        for _ in range(TRIES):
            record, revision = await self._sends.get(key)
            if record is None or not record.account:
                return  # forgotten after its window
            if state is State.BOUNCED and "" in about:
                # The report names nobody: where the mail went to one alone, it is him.
                went = _went_to(known, record)
                about = {one: Report(one, Action.FAILED) for one in went} if len(went) == 1 else {}
            told = record.returned
            new = {who: report for who, report in about.items() if f"{state} {who}" not in told}
            for who, report in new.items():
                await self._suppress(known, record, state, who, report)
                status = self._status(key, record, message_id, state, who, report)
                await publish(self._bus, record.account, record.id, status)
            if not new or len(told) >= REMEMBERED or record.phase is Phase.INTENT:
                return  # whoever sends it still has the record in hand: the events' ids say that they are the same
            changed = msgspec.structs.replace(record, returned=[*told, *(f"{state} {who}" for who in new)])
            try:
                await self._sends.put(key, changed, revision)
            except Conflict:
                continue  # told again with the same ids
            if record.phase is not Phase.FINAL and record.unsure:
                # Nobody knew whether the relay took it: now somebody does.
                await schedule(self._bus, record.account, key, record, self._clock.now())
            log.info("mail_returned", account=record.account, request=record.id, state=state, recipients=len(new))
            return
        raise Transient("the state of a request changes too often", where="mail-sends")

    async def _suppress(
        self, known: Known, record: SendRecord, state: State, who: str, report: Report | UnsetType
    ) -> None:
        """Put on the list whom the relay took it for, alone, and who does not get it for good or does not want it."""
        if not self._suppresses(record.account) or (report is not UNSET and report.hard is not True):
            return
        proved = _went_to(known, record)
        if len(proved) != 1 or who.lower() not in ("", proved[0].lower()):
            return
        reason = f"{state}: {report.reason}" if report is not UNSET and report.reason is not UNSET else str(state)
        if await Suppressions(self._bus, record.account, self._clock).add(proved[0], reason):
            log.info("address_suppressed", account=record.account, request=record.id, state=state)

    def _status(
        self, key: str, record: SendRecord, message_id: str, state: State, who: str, report: Report | UnsetType
    ) -> StoredStatus:
        reply = "" if report is UNSET else report.diagnostic or report.status or ""
        delivered = {who: DeliveryStatus(reply, "no" if state is State.BOUNCED else "yes")} if who else {}
        body = EmailSubmission(
            id=record.id,
            undo_status="final",
            delivery_status=delivered,
            state=state,
            attempt=record.attempt,
            message_id=(message_id if record.split else record.message_id) or UNSET,
            report=report,
            verified=True,
        )
        return StoredStatus(state, event_id(key, state, who, 0), self._clock.now(), msgspec.Raw(encode(body)))


def _went_to(known: Known, record: SendRecord) -> list[str]:
    """Whom the relay took the mail for, as far as the proof tells."""
    return [one for one in record.taken if known.is_of(one)] if known.mark else list(record.taken)


def _addresses(announced: _Announced) -> Iterator[str]:
    """Where a report was sent to: its To, and what servers on the way say of its envelope."""
    yield from (one.email for one in announced.to or ())
    yield from (field.value for field in announced.headers if field.name.lower() in _ENVELOPE)


def _who(known: Known, report: Report) -> str:
    """The recipient as the request had it, where the mail was passed on and the report says both."""
    original = report.original_recipient
    return original if original is not UNSET and known.is_of(original) else report.recipient
