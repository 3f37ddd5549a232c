"""A bounce or a complaint that was announced → the status of the request it is about: `bounced`, `complained`.

Handed to ingest, which calls it for such a mail before its event is committed: so none is forgotten over a crash, and
one that is told again has the same `ce-id`. What mailbus itself sent along proves it (proof.py): strangers cannot make
it (RFC 3464 4.2 warns of forged bounces). Whoever got the mail can: of several recipients of one mail one may speak for
another. What is proved puts the recipient on the account's list of suppressions. A name of the requester's own finds a
request, too (names.py), and proves nothing: that is told with `verified` false, and changes nothing.
A proved report of any kind, also that a mail was delivered or is delayed, says that it went out: where nobody heard
whether it did, that ends the doubt (evidence.py).
"""

import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from service.bus import Bus, Conflict
from service.clock import Clock
from service.contract import (
    DeliveryStatus,
    EmailSubmission,
    Kind,
    Original,
    Report,
    State,
    encode,
    event_id,
)
from service.errors import Transient
from service.observe import log, metrics
from service.outbound.names import Names, by_envelope_id, by_message_id, by_path
from service.outbound.proof import KEY_CHARS, Known, known_by_address, known_of
from service.outbound.retry import Phase
from service.outbound.sends import SendRecord, Sends, StoredStatus
from service.outbound.settle import say, schedule
from service.outbound.status import Delivered, publish
from service.outbound.suppressions import Suppressions
from service.outbound.told import (
    Announced,
    addresses,
    doubted,
    is_final,
    is_for_good,
    is_told,
    may_suppress,
    meant,
    named,
    names_of,
    went_to,
)

# Another process may write the same record at the same time; more often than this is no accident.
TRIES: Final = 5
# A record must fit into one message: who came back is remembered for so many, and told again beyond.
REMEMBERED: Final = 1000
REMEMBERED_BYTES: Final = 64 * 1024


# Where a report was sent to that is looked at: it has one address, and To and the fields above may each say it.
_ADDRESSES: Final = 8
_KEY: Final = re.compile(rf"[0-9a-f]{{{KEY_CHARS}}}")
_DECODER: Final = msgspec.json.Decoder(Announced)


@dataclass(frozen=True, slots=True)
class _Told:
    """What is told of requests. `names`: of whom, as the report has them; `suppresses`: somebody may go on the list."""

    state: State
    message_id: str
    names: dict[str, Report | UnsetType]
    suppresses: bool


class Returned:
    """Finds the requests that mails came back for. `suppresses`: whether an account's list takes those who are proved.

    Of a mail to several anyone of them could say that it came back from another: nobody is put on the list for it.
    """

    def __init__(self, bus: Bus, clock: Clock, *, suppresses: Callable[[str], bool]) -> None:
        self._bus = bus
        self._clock = clock
        self._suppresses = suppresses
        bucket = bus.key_value(bus.subjects.sends)
        self._sends = Sends(bucket, bus.key_value(bus.subjects.cursors), clock)
        self._names = Names(bucket)

    async def heard(self, payload: bytes) -> None:
        """`payload`: the body of a `received` event of a report or a complaint. Raises Transient.

        Whatever else is wrong with it is this one mail's affair: it is announced, and the mailbox goes on.
        """
        try:
            await self._heard(payload)
        except Transient:
            raise
        except Exception as exc:  # noqa: BLE001 a bug that one mail shows must not keep the others away
            metrics.BUGS.inc()
            log.error("bug", where="a mail that came back", exc_info=exc)

    async def _heard(self, payload: bytes) -> None:
        announced = _DECODER.decode(payload)
        said, secret = announced.mailbus, await self._sends.secret()
        state = State.BOUNCED if said.kind is Kind.BOUNCE else State.COMPLAINED
        original = said.original or Original()
        id, envelope_id = original.message_id or "", original.envelope_id or ""
        known = known_of(id, secret) or known_of(envelope_id, secret) or known_by_address(addresses(announced), secret)
        if known is not None:
            await self._went_out(known, names_of(said.reports or ()) | {who.lower() for who in named(said)})
        if not is_told(said):
            return
        told = _Told(state, id, named(said), suppresses=known is not None and may_suppress(announced))
        if known is not None:
            await self._tell(known, told, verified=True, alone=True)
            return
        requests = await self._claimed(id, envelope_id, announced)
        for key in requests:
            await self._tell(Known(key, ""), told, verified=False, alone=len(requests) == 1)

    async def _claimed(self, id: str, envelope_id: str, announced: Announced) -> list[str]:
        """The requests that a report without a proof may be about, by their keys."""
        names = [by_message_id(id)] if id else []
        names += [by_envelope_id(envelope_id)] if envelope_id else []
        paths = dict.fromkeys(addresses(announced))
        names += [by_path(path.strip(" <>")) for _, path in zip(range(_ADDRESSES), paths, strict=False)]
        found: list[str] = []
        for key in await self._names.find(names):
            record, _ = await self._sends.get(key)
            if record is not None and record.account:
                found.append(key)
        # A Message-ID that was made with a secret that is lost proves nothing any more; its record still has it.
        if not found and _KEY.match(id):
            record, _ = await self._sends.get(id[:KEY_CHARS])
            if record is not None and record.account and record.message_id == id:
                found.append(id[:KEY_CHARS])
        return found

    async def _tell(self, known: Known, said: "_Told", *, verified: bool, alone: bool) -> None:
        key, state = known.key, said.state
        for _ in range(TRIES):
            record, revision = await self._sends.get(key)
            if record is None or not record.account:
                return  # forgotten after its window
            about = meant(known, record, state, said.names, alone=alone, proved=verified)
            # What is proved is told even if it was claimed before.
            known_of_it = record.returned if verified else [*record.returned, *record.claimed]
            new = {who: report for who, report in about.items() if f"{state} {who}" not in known_of_it}
            for who, report in new.items():
                if said.suppresses:
                    await self._suppress(known, record, state, who, report)
                status = self._status(key, record, said.message_id, state, who, report, verified=verified)
                await publish(self._bus, record.account, record.id, status)
            told = record.returned if verified else record.claimed
            if not new or len(told) >= REMEMBERED or record.phase is Phase.INTENT:
                return  # whoever sends it still has the record in hand: the events' ids say that they are the same
            told = list(dict.fromkeys([*told, *(f"{state} {who}" for who in new)]))
            if len(encode(told)) > REMEMBERED_BYTES:
                return
            changed = msgspec.structs.replace(record, **{"returned" if verified else "claimed": told})
            try:
                await self._sends.put(key, changed, revision)
            except Conflict:
                continue  # told again with the same ids
            log.info(
                "mail_returned",
                account=record.account,
                request=record.id,
                state=state,
                recipients=len(new),
                verified=verified,
            )
            return
        raise Transient("the state of a request changes too often", where="mail-sends")

    async def _went_out(self, known: Known, names: AbstractSet[str]) -> None:
        """Keep for whom a report proves that the mail went out, and nobody heard whether it did.

        Beside the record, which is another's to write while an attempt is under way.
        """
        record, _ = await self._sends.get(known.key)
        if record is None or not (about := doubted(known, record, names)):
            return
        await self._sends.report(known.key, about)
        log.info("mail_went_out", account=record.account, request=record.id, recipients=len(about))
        for _ in range(TRIES):
            # Again: an attempt that has ended meanwhile looked before. One that has not looks once it has stored its
            # outcome.
            record, revision = await self._sends.get(known.key)
            if record is None or not doubted(known, record, names) or record.phase is Phase.INTENT:
                return
            try:
                # As it is: so whoever has it in hand, and waits for his turn with it, has it no more.
                await self._sends.put(known.key, record, revision)
            except Conflict:
                continue
            await self._look_again(known.key, record)
            return
        raise Transient("the state of a request changes too often", where="mail-sends")

    async def _look_again(self, key: str, record: SendRecord) -> None:
        """Nobody knew whether the relay took it: now somebody does. An attempt overwrites what was not said."""
        await say(self._bus, record.account, record)
        await schedule(self._bus, record.account, key, record, self._clock.now())

    async def _suppress(
        self, known: Known, record: SendRecord, state: State, who: str, report: Report | UnsetType
    ) -> None:
        """Put on the list whom the relay took it for, alone, and who does not get it for good or does not want it."""
        if not self._suppresses(record.account) or (state is State.BOUNCED and not is_for_good(report)):
            return
        proved = went_to(known, record)
        if len(proved) != 1 or who.lower() not in ("", proved[0].lower()) or not is_final(report, proved[0]):
            return
        reason = f"{state}: {report.reason}" if report is not UNSET and report.reason is not UNSET else str(state)
        if await Suppressions(self._bus, record.account, self._clock).add(proved[0], reason):
            log.info("address_suppressed", account=record.account, request=record.id, state=state)

    def _status(
        self,
        key: str,
        record: SendRecord,
        message_id: str,
        state: State,
        who: str,
        report: Report | UnsetType,
        *,
        verified: bool,
    ) -> StoredStatus:
        reply = "" if report is UNSET else report.diagnostic or report.status or ""
        # What anybody may have made up says nothing of a delivery.
        delivered: Delivered = "unknown" if not verified else "no" if state is State.BOUNCED else "yes"
        body = EmailSubmission(
            id=record.id,
            undo_status="final",
            delivery_status={who: DeliveryStatus(reply, delivered)} if who else {},
            state=state,
            attempt=record.attempt,
            message_id=(message_id if record.split else record.message_id) or UNSET,
            report=report,
            verified=verified,
        )
        return StoredStatus(
            state, event_id(key, state, who, 0 if verified else 1), self._clock.now(), msgspec.Raw(encode(body))
        )
