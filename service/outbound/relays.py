"""An account's relay → what it said of each recipient of a mail, or why nothing was sent; and whether it is there.

Used by attempt.py; deliver.py asks whether it is away, sender.py watches it.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from service.clock import Clock
from service.errors import AuthRefused, MailbusError, Permanent, Transient, Uncertain
from service.outbound.breaker import Breaker
from service.outbound.mail import Mail
from service.outbound.retry import Said, Verdict
from service.smtp import BeforeDot, DotUnanswered, Relay, RelayUnreachable, Reply

# How long a relay may be away before its requests are put off.
PATIENCE_S: Final = 15.0
# RFC 3463 3.5: where it failed. Nobody answered; the connection was lost.
NO_ANSWER: Final = "4.4.1"
CUT_OFF: Final = "4.4.2"


class BusAwayError(Uncertain):
    """The intent could not be written: not the relay's fault."""


class Relays:
    """Where one account's mail goes."""

    def __init__(self, relay: Relay, account: str, clock: Clock) -> None:
        self._relay = relay
        self._account = account
        self._clock = clock
        self._breaker = Breaker(account)
        # Why the relay is not asked at the moment, and since when.
        self._away: MailbusError | None = None
        self._away_since = 0.0
        self._gone = asyncio.Event()

    @property
    def away(self) -> MailbusError | None:
        """Why nobody is asked at the moment."""
        return self._away

    @property
    def just_lost(self) -> bool:
        """Most relays are back in a moment: nobody need hear of it."""
        return self._away is not None and self._clock.monotonic() - self._away_since < PATIENCE_S

    def lost(self, why: MailbusError) -> None:
        """No attempt is made until `found`."""
        if self._away is None:
            self._away_since = self._clock.monotonic()
        # Kept for long: a traceback would keep the mail that was in hand.
        why.__traceback__ = why.__cause__ = why.__context__ = None
        self._away = why
        self._gone.set()

    def found(self) -> None:
        """The relay is there."""
        self._away = None
        self._gone.clear()

    async def wait_lost(self) -> MailbusError:
        """Until a delivery finds the relay lost; gives why."""
        await self._gone.wait()
        return self._away or Transient("the relay was lost", where=self._account)

    async def ask(self, mail: Mail, before_final_dot: BeforeDot) -> dict[str, Said]:
        """What was said of each recipient of a mail, or why nothing was sent. Raises Transient where NATS is away."""
        if self._away is not None:
            return _not_sent(mail, NO_ANSWER, self._away)
        try:
            replies = await self._relay.deliver(
                mail.mail_from, list(mail.wire), mail.data, before_final_dot=before_final_dot, extras=mail.extras
            )
            said = each(mail, replies)
        except (RelayUnreachable, AuthRefused, Permanent) as exc:
            said = _not_sent(mail, NO_ANSWER, exc)
            self.lost(exc)
        except DotUnanswered as exc:
            said = _all(mail, Said(Verdict.UNKNOWN, "")) | each(mail, exc.refused)
        except BusAwayError as exc:
            raise Transient(exc.what, where=exc.where) from exc
        except Transient as exc:
            said = _not_sent(mail, CUT_OFF, exc)
        if (why := self._breaker.heard(said)) is not None:
            self.lost(why)
        return said


def _not_sent(mail: Mail, status: str, why: MailbusError) -> dict[str, Said]:
    return _all(mail, Said(Verdict.PUT_OFF, f"451 {status} not sent by mailbus: {why.what}"))


def _all(mail: Mail, said: Said) -> dict[str, Said]:
    return {recipient: said for recipients in mail.wire.values() for recipient in recipients}


def each(mail: Mail, replies: Mapping[str, Reply]) -> dict[str, Said]:
    """The relay's replies by address → what they say of each recipient."""
    said: dict[str, Said] = {}
    taken = any(reply.accepted for reply in replies.values())
    for address, reply in replies.items():
        if reply.accepted:
            verdict = Verdict.ACCEPTED
        elif taken and reply.overfull:
            verdict = Verdict.OVERFULL
        else:
            verdict = Verdict.REFUSED if reply.refused else Verdict.PUT_OFF
        said.update(dict.fromkeys(mail.wire[address], Said(verdict, str(reply))))
    return said
