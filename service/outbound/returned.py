"""A bounce or a complaint that was announced → the status of the request it is about: `bounced`, `complained`.

Handed to ingest, which calls it for such a mail before its event is committed: so none is forgotten over a crash, and
one that is told again has the same `ce-id`. Only a Message-ID that mailbus itself gave counts: strangers cannot make
one, so a forged bounce changes nothing (RFC 3464 4.2 warns of them). Whoever got the mail can: of several recipients
one may speak for another.
"""

import hmac
from collections.abc import Iterable
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
from service.outbound.mail import KEY_CHARS, tag_of
from service.outbound.retry import Phase
from service.outbound.sends import SendRecord, Sends, StoredStatus
from service.outbound.status import publish

# Another process may write the same record at the same time; more often than this is no accident.
TRIES: Final = 5
# A record must fit into one message: who came back is remembered for so many, and told again beyond.
REMEMBERED: Final = 1000


class _Announced(msgspec.Struct):
    """What counts of an announced mail."""

    mailbus: Extension


_DECODER: Final = msgspec.json.Decoder(_Announced)


def key_of(message_id: str, secret: bytes) -> str | None:
    """The request that a Message-ID of ours is of; None for any other."""
    local = message_id.partition("@")[0]
    key, tag = local[:KEY_CHARS], local[KEY_CHARS:]
    return key if local.isascii() and hmac.compare_digest(tag, tag_of(key, secret)) else None


class Returned:
    """Finds the requests that mails came back for."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), clock)

    async def heard(self, payload: bytes) -> None:
        """`payload`: the body of a `received` event of kind bounce or complaint. Raises Transient."""
        said = _DECODER.decode(payload).mailbus
        if said.original is UNSET or said.original.message_id is UNSET:
            return
        key = key_of(said.original.message_id, await self._sends.secret())
        if key is None:
            return
        if said.kind is Kind.BOUNCE:
            failed = [one for one in (said.reports or ()) if one.action is Action.FAILED]
            await self._tell(key, State.BOUNCED, {one.recipient: one for one in failed})
        elif said.kind is Kind.COMPLAINT:
            # RFC 5965 3.2: a provider need not say who complained.
            who: Iterable[str] = said.original.recipients or ("",)
            await self._tell(key, State.COMPLAINED, dict.fromkeys(who, UNSET))

    async def _tell(self, key: str, state: State, about: dict[str, Report] | dict[str, UnsetType]) -> None:
        for _ in range(TRIES):
            record, revision = await self._sends.get(key)
            if record is None or not record.account:
                return  # forgotten after its window
            told = record.returned
            new = {who: report for who, report in about.items() if f"{state} {who}" not in told}
            for who, report in new.items():
                await publish(self._bus, record.account, record.id, self._status(key, record, state, who, report))
            if not new or len(told) >= REMEMBERED or record.phase is not Phase.FINAL or record.statuses:
                return  # whoever sends it still has the record in hand: the events' ids say that they are the same
            changed = msgspec.structs.replace(record, returned=[*told, *(f"{state} {who}" for who in new)])
            try:
                await self._sends.put(key, changed, revision)
            except Conflict:
                continue  # told again with the same ids
            log.info("mail_returned", account=record.account, request=record.id, state=state, recipients=len(new))
            return
        raise Transient("the state of a request changes too often", where="mail-sends")

    def _status(self, key: str, record: SendRecord, state: State, who: str, report: Report | UnsetType) -> StoredStatus:
        reply = "" if report is UNSET else report.diagnostic or report.status or ""
        delivered = {who: DeliveryStatus(reply, "no" if state is State.BOUNCED else "yes")} if who else {}
        body = EmailSubmission(
            id=record.id,
            undo_status="final",
            delivery_status=delivered,
            state=state,
            attempt=record.attempt,
            message_id=record.message_id or UNSET,
            report=report,
            verified=True,
        )
        return StoredStatus(state, event_id(key, state, who, 0), self._clock.now(), msgspec.Raw(encode(body)))
