"""An Email id → the message that was announced under it, from the log; a request about it → one that needs it no more.

Used by ways.py and by the command `send`. An id names mailbox, epoch and UID, and a mailbox's events stand in the
order of their UIDs, so that a few looks find one among millions. What was resolved is what is kept while a request
waits: the log may forget meanwhile.
"""

from typing import Final, TypeVar
from urllib.parse import unquote

import msgspec

from service.bus import Bus, Tail
from service.contract import (
    HASHED_TOKEN,
    Email,
    ImapPlace,
    Problem,
    RequestProblems,
    Reset,
    SendRequest,
    check_request,
    mailbox_hash,
    place_of,
)
from service.errors import Permanent
from service.outbound.answer import answered, unfit

T = TypeVar("T")

GONE: Final = "no message was announced under this id, or its event is no longer in the log"
_EMAIL: Final = msgspec.json.Decoder(Email)
_RESET: Final = msgspec.json.Decoder(Reset)


class Originals:
    """The announced messages of one account. `address`: its own."""

    def __init__(self, bus: Bus, account: str, address: str) -> None:
        self._bus = bus
        self._account = account
        self._address = address

    async def resolved(self, request: SendRequest) -> SendRequest:
        """A request with everything in it that it takes from a message. Raises RequestProblems, Transient."""
        if request.original_id is None:
            return request
        field = "reply.emailId" if request.reply is not None else "forward.emailId"
        try:
            original = await self.find(request.original_id)
        except Permanent as exc:
            raise RequestProblems([Problem(field, exc.what)]) from exc
        if original is None:
            raise RequestProblems([Problem(field, GONE)])
        if problems := unfit(request, original, self._address):
            raise RequestProblems(problems)
        whole = answered(request, original, self._address)
        if problems := check_request(whole):
            raise RequestProblems(problems)
        return whole

    async def find(self, id: str) -> Email | None:
        """The message as it was announced; None where it is not in the log. Raises Permanent, Transient."""
        place = place_of(id)
        token = await self._token(place.mailbox_hash) if place is not None else None
        if place is None or token is None:
            return None
        found = await self._event(token, place)
        return _read(_EMAIL, found) if found is not None else None

    def _subject(self, token: str, kind: str) -> str:
        # A token is made already: a mailbox's name would be encoded once more.
        return f"{self._bus.subjects.prefix}.in.{self._account}.{token}.{kind}"

    async def _token(self, hash: bytes) -> str | None:
        """How subjects name the mailbox of an id."""
        for subject in await self._bus.queued(self._bus.subjects.stream_in, self._subject("*", "received")):
            token = subject.split(".")[3]
            name: str | None = unquote(token)
            if token.startswith(HASHED_TOKEN):
                reset = await self._bus.log.tail(self._subject(token, "reset"))
                name = _read(_RESET, reset).mailbox if reset is not None else None
            if name is not None and mailbox_hash(name) == hash:
                return token
        return None

    async def _event(self, token: str, place: ImapPlace) -> Tail | None:
        low, high = await self._epoch(token, place.uidvalidity)
        while low < high:
            middle = (low + high) // 2
            one = await self._bus.log.within(self._subject(token, "received"), middle, high)
            there = place_of(one.headers.get("ce-subject", "")) if one is not None else None
            if one is None or there is None or there.uid > place.uid:
                high = middle
            elif there == place:
                return one
            else:
                low = one.seq + 1
        return None

    async def _epoch(self, token: str, uidvalidity: int) -> tuple[int, int]:
        """From where to where the events of an epoch stand, the last one of this UIDVALIDITY."""
        end = (await self._bus.log.bounds()).last_seq + 1
        # What stands before the first reset that is still there is of an epoch whose own reset is gone.
        starts, epochs = [0], [0]
        while (reset := await self._bus.log.within(self._subject(token, "reset"), starts[-1] + 1, end)) is not None:
            starts.append(reset.seq)
            epochs.append(_read(_RESET, reset).uidvalidity)
        which = max((i for i, one in enumerate(epochs) if one == uidvalidity), default=0)
        return starts[which], [*starts, end][which + 1]


def _read(decoder: msgspec.json.Decoder[T], event: Tail) -> T:
    """An event's body. Raises Permanent where a stranger wrote it."""
    try:
        return decoder.decode(event.payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise Permanent(f"event {event.seq} of the log cannot be read", where=event.subject) from exc
