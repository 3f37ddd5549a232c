"""An account's relays → what it said of each recipient of a mail, or why nothing was sent; and whether one is
there.

Used by attempt.py; deliver.py and ways.py ask whether all are away, sender.py watches the first.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from service.clock import Clock
from service.errors import AuthRefused, MailbusError, Permanent, Transient, Uncertain
from service.observe import log
from service.outbound.blame import SERVICE_CLOSING
from service.outbound.breaker import Breaker
from service.outbound.mail import Mail
from service.outbound.pace import Pace
from service.outbound.retry import Said, Verdict
from service.smtp import Booking, DotUnanswered, LoginWanted, Relay, RelayUnreachable, Reply, TlsWanted, TurnedAway
from service.tasks import TaskGroup

# How long a relay may be away before its requests are put off.
PATIENCE_S: Final = 15.0
# A relay behind the first is tried again after so long: one that could not be reached, one that refuses.
AGAIN_S: Final = 60.0
REFUSED_S: Final = 300.0
# RFC 3463 3.5: where it failed. Nobody answered; the connection was lost.
NO_ANSWER: Final = "4.4.1"
CUT_OFF: Final = "4.4.2"
# RFC 3463 3.7, RFC 6531 3.4: it has no 8BITMIME; no SMTPUTF8, for an address, for the header.
LACKS: Final = frozenset({"5.6.3", "5.6.7", "5.6.9"})


# Awaited before a relay may act on a mail, with its name (where there are several) and who was refused so far.
Intent = Callable[[str, Mapping[str, Reply]], Awaitable[None]]


class BusAwayError(Uncertain):
    """The intent could not be written: not the relay's fault."""


class _Way:
    """One relay, and why it is not asked at the moment."""

    def __init__(self, relay: Relay, account: str) -> None:
        self.relay = relay
        self.breaker = Breaker(account)
        self.away: MailbusError | None = None
        self.since = 0.0


class Relays:
    """Where one account's mail goes: the first relay that is there, in the order of preference."""

    def __init__(self, relays: Sequence[Relay], account: str, pace: Pace, clock: Clock) -> None:
        self._pace = pace
        self._ways = [_Way(relay, account) for relay in relays]
        self._first = self._ways[0]
        self._account = account
        self._clock = clock
        self._gone = asyncio.Event()
        # Set but while the first relay greets us and takes no mail, for a reason that is the account's.
        self._takes_mail = asyncio.Event()
        self._takes_mail.set()

    @property
    def away(self) -> MailbusError | None:
        """Why nobody is asked at the moment; None where somebody is."""
        return None if any(map(self._is_there, self._ways)) else self._first.away

    @property
    def just_lost(self) -> bool:
        """Most relays are back in a moment: nobody need hear of it."""
        return self.away is not None and self._clock.monotonic() - self._first.since < PATIENCE_S

    def _is_there(self, way: _Way) -> bool:
        if way.away is None:
            return True
        # Nobody watches those behind the first: a mail tries them.
        pause_s = REFUSED_S if isinstance(way.away, Permanent) else AGAIN_S
        return way is not self._first and self._clock.monotonic() - way.since >= pause_s

    def lost(self, why: MailbusError) -> None:
        """The first is not asked until `found`."""
        self._lose(self._first, why)

    def _lose(self, way: _Way, why: MailbusError) -> None:
        if way.away is None or way is not self._first:
            way.since = self._clock.monotonic()
        # Kept for long: a traceback would keep the mail that was in hand.
        why.__traceback__ = why.__cause__ = why.__context__ = None
        way.away = why
        way.relay.turn_away()
        if way is self._first:
            self._gone.set()
        else:
            log.warning("relay_lost", account=self._account, relay=way.relay.name, error=why.what, remedy=why.remedy)

    def found(self) -> None:
        """The first relay is there."""
        self._first.away = None
        self._gone.clear()

    async def wait_lost(self) -> MailbusError:
        """Until a delivery finds the first relay lost; gives why."""
        await self._gone.wait()
        return self._first.away or Transient("the relay was lost", where=self._account)

    async def wait_taking(self) -> None:
        """Until the first relay, once it said to a mail what to a connection it does not (530), took one after all.

        Raises what it said, where it says it again.
        """
        while not self._takes_mail.is_set():
            async with TaskGroup() as group:
                waits = [group.create_task(one.wait(), name="relay") for one in (self._takes_mail, self._gone)]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for one in waits:
                    one.cancel()
            if self._gone.is_set():
                raise await self.wait_lost()

    async def book(self) -> Booking | None:
        """A connection for mails that wait for none then; None where no relay is there. Raises TurnedAway."""
        for way in filter(self._is_there, self._ways):
            try:
                return await way.relay.book()
            except (RelayUnreachable, AuthRefused, Permanent) as exc:
                self._lose(way, exc)
        return None

    async def ask(self, mail: Mail, intent: Intent, booking: Booking | None = None) -> dict[str, Said]:
        """What was said of each recipient of a mail, or why nothing was sent. `booking`: by which connection it goes.

        Raises Transient where NATS is away; TurnedAway where a connection was waited for, and no relay was asked.

        The next relay is asked only where the one before certainly has nothing of it, for anybody. Nobody is refused
        for a reason of a relay's own while another, which may not have it, is away or puts him off.
        """
        said = _not_sent(mail, NO_ANSWER, self._first.away) if self._first.away is not None else {}
        away, asked, later = False, False, set[str]()
        for way in self._ways:
            if not self._is_there(way):
                away = True
                continue
            try:
                said = await self._ask(way, mail, intent, booking)
            except TurnedAway:
                if not asked:
                    raise
                # As if it was away: what the one before said is known, and its intent may stand.
                away = True
                continue
            asked = True
            if not all(map(_of_the_relay, said.values())):
                return said
            later |= {who for who, one in said.items() if one.verdict is Verdict.PUT_OFF}
        return {who: _put_off(one) if away or who in later else one for who, one in said.items()}

    async def _ask(self, way: _Way, mail: Mail, intent: Intent, booking: Booking | None) -> dict[str, Said]:
        name = way.relay.name if len(self._ways) > 1 else ""
        try:
            replies = await way.relay.deliver(
                mail.mail_from,
                list(mail.wire),
                mail.data,
                before_final_dot=lambda refused: intent(name, refused),
                extras=mail.extras,
                booking=booking,
            )
            said = each(mail, replies)
            if way is not self._first:
                way.away = None
            elif any(one.verdict is Verdict.ACCEPTED for one in said.values()):
                self._takes_mail.set()
        except (RelayUnreachable, AuthRefused, Permanent) as exc:
            said = _not_sent(mail, NO_ANSWER, exc)
            if way is self._first and isinstance(exc, LoginWanted | TlsWanted):
                # What was said to a connection the next one hears, without a mail.
                self._takes_mail.clear()
            self._lose(way, exc)
        except DotUnanswered as exc:
            said = _all(mail, Said(Verdict.UNKNOWN, "")) | each(mail, exc.settled, taken=True)
        except BusAwayError as exc:
            raise Transient(exc.what, where=exc.where) from exc
        except Transient as exc:
            said = _not_sent(mail, CUT_OFF, exc)
        self._pace.heard(said)
        if (why := way.breaker.heard(said)) is not None:
            self._lose(way, why)
        return said


def _of_the_relay(said: Said) -> bool:
    """Whether a relay took nothing for a reason of its own, which another may not have (RFC 3463 3.4, 3.5, 3.8).

    Such a one is an extension that it does not offer, for which nothing was sent to it (smtp/session.py).
    """
    if said.verdict not in (Verdict.PUT_OFF, Verdict.REFUSED):
        return False
    words = said.reply.split()
    enhanced = words[1] if len(words) > 1 else ""
    return words[0] == SERVICE_CLOSING or enhanced[1:4] in (".3.", ".4.", ".7.") or enhanced in LACKS


def _put_off(said: Said) -> Said:
    """The same words, as no refusal."""
    return Said(Verdict.PUT_OFF, said.reply, said.of_recipient)


def _not_sent(mail: Mail, status: str, why: MailbusError) -> dict[str, Said]:
    return _all(mail, Said(Verdict.PUT_OFF, f"451 {status} not sent by mailbus: {why.what}"))


def _all(mail: Mail, said: Said) -> dict[str, Said]:
    return {recipient: said for recipients in mail.wire.values() for recipient in recipients}


def each(mail: Mail, replies: Mapping[str, Reply], *, taken: bool = False) -> dict[str, Said]:
    """The relay's replies by address → what they say of each recipient. `taken`: others than these were accepted."""
    said: dict[str, Said] = {}
    taken = taken or any(reply.accepted for reply in replies.values())
    for address, reply in replies.items():
        if reply.accepted:
            verdict = Verdict.ACCEPTED
        elif taken and reply.overfull:
            verdict = Verdict.OVERFULL
        else:
            verdict = Verdict.REFUSED if reply.refused else Verdict.PUT_OFF
        said.update(dict.fromkeys(mail.wire[address], Said(verdict, str(reply), reply.of_recipient)))
    return said
