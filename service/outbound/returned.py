"""A bounce or a complaint that was announced → the status of the request it is about: `bounced`, `complained`.

Handed to ingest, which calls it for such a mail before its event is committed: so none is forgotten over a crash, and
one that is told again has the same `ce-id`. Only a Message-ID that mailbus itself gave counts: strangers cannot make
one, so a forged bounce changes nothing (RFC 3464 4.2 warns of them). Whoever got the mail can: of several recipients
of one mail one may speak for another. What is proved puts the recipient on the account's list of suppressions.
"""

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from service.bus import Bus, Conflict
from service.clock import Clock
from service.contract import (
    Action,
    DeliveryStatus,
    EmailSubmission,
    Extension,
    Kind,
    Report,
    State,
    encode,
    event_id,
)
from service.errors import Transient
from service.observe import log
from service.outbound.mail import KEY_CHARS, MARK_CHARS, TAG_CHARS, mark_of, tag_of
from service.outbound.retry import Phase
from service.outbound.sends import SendRecord, Sends, StoredStatus
from service.outbound.status import publish
from service.outbound.suppressions import Suppressions

# Another process may write the same record at the same time; more often than this is no accident.
TRIES: Final = 5
# A record must fit into one message: who came back is remembered for so many, and told again beyond.
REMEMBERED: Final = 1000


class _Announced(msgspec.Struct):
    """What counts of an announced mail."""

    mailbus: Extension


_DECODER: Final = msgspec.json.Decoder(_Announced)


@dataclass(frozen=True, slots=True)
class Known:
    """What a Message-ID of ours says: the request's key, and what names the recipient where each got a message."""

    key: str
    mark: str

    def is_of(self, recipient: str) -> bool:
        """Whether it proves that this recipient is meant."""
        return bool(self.mark) and self.mark == mark_of(recipient)


def known_of(message_id: str, secret: bytes) -> Known | None:
    """What a Message-ID of ours says; None for any other."""
    local = message_id.partition("@")[0]
    if not local.isascii():
        return None
    cut = KEY_CHARS + (MARK_CHARS if len(local) > KEY_CHARS + TAG_CHARS else 0)
    said, tag = local[:cut], local[cut:]
    return Known(said[:KEY_CHARS], said[KEY_CHARS:]) if hmac.compare_digest(tag, tag_of(said, secret)) else None


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
        said = _DECODER.decode(payload).mailbus
        if said.original is UNSET or said.original.message_id is UNSET:
            return
        known = known_of(said.original.message_id, await self._sends.secret())
        if known is None:
            return
        id = said.original.message_id
        if said.kind is Kind.BOUNCE:
            failed = [one for one in (said.reports or ()) if one.action is Action.FAILED]
            await self._tell(known, id, State.BOUNCED, {_who(known, one): one for one in failed})
        elif said.kind is Kind.COMPLAINT:
            # RFC 5965 3.2: a provider need not say who complained.
            who: Iterable[str] = said.original.recipients or ("",)
            await self._tell(known, id, State.COMPLAINED, dict.fromkeys(who, UNSET))

    async def _tell(
        self, known: Known, message_id: str, state: State, about: dict[str, Report] | dict[str, UnsetType]
    ) -> None:
        key = known.key
        for _ in range(TRIES):
            record, revision = await self._sends.get(key)
            if record is None or not record.account:
                return  # forgotten after its window
            told = record.returned
            new = {who: report for who, report in about.items() if f"{state} {who}" not in told}
            for who, report in new.items():
                await self._suppress(known, record, state, who, report)
                status = self._status(key, record, message_id, state, who, report)
                await publish(self._bus, record.account, record.id, status)
            if not new or len(told) >= REMEMBERED or record.phase is not Phase.FINAL:
                return  # whoever sends it still has the record in hand: the events' ids say that they are the same
            changed = msgspec.structs.replace(record, returned=[*told, *(f"{state} {who}" for who in new)])
            try:
                await self._sends.put(key, changed, revision)
            except Conflict:
                continue  # told again with the same ids
            log.info("mail_returned", account=record.account, request=record.id, state=state, recipients=len(new))
            return
        raise Transient("the state of a request changes too often", where="mail-sends")

    async def _suppress(
        self, known: Known, record: SendRecord, state: State, who: str, report: Report | UnsetType
    ) -> None:
        """Put on the list whom the relay took it for, alone, and who does not get it for good or does not want it."""
        if not self._suppresses(record.account) or (report is not UNSET and report.hard is not True):
            return
        proved = [one for one in record.taken if known.is_of(one)] if known.mark else record.taken
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
            message_id=message_id if record.split else record.message_id or UNSET,
            report=report,
            verified=True,
        )
        return StoredStatus(state, event_id(key, state, who, 0), self._clock.now(), msgspec.Raw(encode(body)))


def _who(known: Known, report: Report) -> str:
    """The recipient as the request had it, where the mail was passed on and the report says both."""
    original = report.original_recipient
    return original if original is not UNSET and known.is_of(original) else report.recipient
