"""Deliveries → connections that are used again: a relay of one account. Used by outbound."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from service.clock import Clock
from service.errors import Transient
from service.observe import log, metrics
from service.smtp.errors import ChunksUnknown
from service.smtp.options import NO_EXTRAS, Extras, SmtpOptions
from service.smtp.session import SERVICE_CLOSING, BeforeDot, Session
from service.smtp.wire import Reply

# Relays end idle connections after a minute or more, and count messages: Postfix's own reuse limit is 300 s.
IDLE_S: Final = 30.0
TRANSACTIONS_LIMIT: Final = 100


class Relay:
    """The relay of one account. Every delivery has a connection to itself; idle ones wait for the next."""

    def __init__(self, options: SmtpOptions, clock: Clock) -> None:
        self.options = options
        self._clock = clock
        self._idle: list[Session] = []
        # Until one that offers BDAT turns out not to know it.
        self._chunks = True
        self._reaper: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """As a record names it."""
        return f"{self.options.host}:{self.options.port}"

    async def deliver(
        self,
        mail_from: str,
        rcpt_to: Sequence[str],
        data: bytes,
        *,
        before_final_dot: BeforeDot,
        extras: Extras = NO_EXTRAS,
    ) -> dict[str, Reply]:
        """Deliver a message of CRLF lines; gives the reply that settles each recipient.

        `before_final_dot` is awaited, with the recipients refused so far, while the body streams: the message's end
        waits for it. Raises RelayUnreachable, AuthRefused or Permanent where no connection came about, or the relay
        wants a login or TLS; Transient where it was lost before the end; DotUnanswered after it; and whatever
        `before_final_dot` raises.
        """
        begun = False

        async def note_begun(refused: Mapping[str, Reply]) -> None:
            nonlocal begun
            begun = True
            await before_final_dot(refused)

        while True:
            kept = self._take()
            session = kept or await self._open()
            try:
                replies = await self._transact(session, mail_from, rcpt_to, data, note_begun, extras)
            except ChunksUnknown as exc:
                # Nothing was begun, and from now on new connections use DATA.
                self._chunks = False
                log.info("chunks_unknown", account=self.options.account, relay=self.name, error=exc.what)
            except Transient:
                # A relay may have ended an idle connection just now; nothing was begun, so a new try costs nothing.
                if begun or kept is None:
                    raise
            else:
                # Or it does so now, with a word.
                if begun or kept is None or any(reply.code != SERVICE_CLOSING for reply in replies.values()):
                    return replies

    async def probe(self) -> None:
        """Connect and log in, and keep the connection. Raises as `deliver` does where none comes about."""
        self._give_back(await self._open())

    async def close(self) -> None:
        """End the idle connections. The next delivery opens one again."""
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        for session in self._idle:
            session.quit()
        self._idle.clear()

    async def _open(self) -> Session:
        session = await Session.open(self.options, clock=self._clock, chunks=self._chunks)
        metrics.RECONNECTS.labels(protocol="smtp", reason="new").inc()
        return session

    async def _transact(
        self,
        session: Session,
        mail_from: str,
        rcpt_to: Sequence[str],
        data: bytes,
        before_final_dot: BeforeDot,
        extras: Extras,
    ) -> dict[str, Reply]:
        replies = await session.transact(mail_from, rcpt_to, data, before_final_dot=before_final_dot, extras=extras)
        self._give_back(session)
        return replies

    def _take(self) -> Session | None:
        while self._idle:
            session = self._idle.pop()
            if session.usable and self._clock.monotonic() - session.used_at < IDLE_S:
                return session
            session.quit()
        return None

    def _give_back(self, session: Session) -> None:
        # No limit on idle ones: there are as many as there were deliveries at once, which the caller bounds.
        if session.transactions >= TRANSACTIONS_LIMIT or not session.usable:
            session.quit()
            return
        self._idle.append(session)
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(IDLE_S, self._reap)

    def _reap(self) -> None:
        self._reaper = None
        now = self._clock.monotonic()
        for session in [one for one in self._idle if now - one.used_at >= IDLE_S or not one.usable]:
            self._idle.remove(session)
            session.quit()
        if self._idle:
            self._reaper = asyncio.get_running_loop().call_later(IDLE_S, self._reap)
