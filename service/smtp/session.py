"""One connection to a relay and one transaction after the other on it.

Pipelined where the relay can, a reply for each recipient, and a stage that always knows whether the message's end was
sent: the final dot, or the last chunk. Used by pool.py; connect.py makes the connection. RFC 5321, RFC 2920
(PIPELINING), RFC 3030 (CHUNKING), RFC 2033 (LMTP), RFC 1870, 6152, 6531 (parameters).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from service.clock import Clock
from service.errors import MailbusError, PeerError, Transient, verdict_of
from service.observe import step
from service.smtp.connect import Connection, connect
from service.smtp.envelope import JOINED_BYTES, Message, Offer, Prepared, prepare
from service.smtp.errors import SERVICE_CLOSING, ChunksUnknown, DotUnanswered, wanted_first
from service.smtp.options import SmtpOptions
from service.smtp.state import Seen, Stage, after
from service.smtp.wire import Reply
from service.tasks import TaskGroup

BLOCK_BYTES: Final = 64 * 1024
# In a thread: this much takes over a millisecond to look through.
THREAD_FROM_BYTES: Final = 1024 * 1024
# A message whose end is answered within this holds up nobody behind it.
QUICK_S: Final = 1.0
RSET: Final = b"RSET\r\n"
QUIT: Final = b"QUIT\r\n"
# What the relay has to do for it is little; who waits for the connection's place waits for it.
GOODBYE_S: Final = 1.0
# RFC 5321 grants it no time of its own: there is nothing to be done for it.
RSET_TIMEOUT_S: Final = 30.0
START_INPUT: Final = 354
# RFC 5321 4.2.2: the command, or what stands behind it, is unknown here.
COMMAND_UNKNOWN: Final = range(500, 505)
BeforeDot = Callable[[Mapping[str, Reply]], Awaitable[None]]


class Session:
    """One connection. Not for two transactions at once.

    `chunks`: whether BDAT may be used where it is offered. `next_message`: whose envelope goes out with a message's
    end; it is then out of hand here, until `transact` is called with it.
    """

    def __init__(
        self,
        connection: Connection,
        options: SmtpOptions,
        clock: Clock,
        *,
        chunks: bool = True,
        next_message: Callable[["Session"], Prepared | None],
    ) -> None:
        self._connection = connection
        self._options = options
        self._clock = clock
        # With PIPELINING alone: otherwise it takes a round trip more than DATA.
        chunks = chunks and {"chunking", "pipelining"} <= connection.extensions.keys()
        self.offer = Offer(connection.extensions, chunks, connection.secure)
        self._next = next_message
        self._stage = Stage.READY
        self._dirty = False
        # Whether the last message's end was answered soon.
        self._quick = False
        # Whether the next message may be anybody's.
        self.shared = True
        self.opened_at = self.used_at = clock.monotonic()
        self.transactions = 0

    @classmethod
    async def open(
        cls,
        options: SmtpOptions,
        *,
        clock: Clock,
        chunks: bool = True,
        next_message: Callable[["Session"], Prepared | None],
    ) -> "Session":
        """Connect, protect, log in, within one budget. Raises RelayUnreachable, AuthRefused, Permanent (TLS).

        Until a login has proved the credentials right, one goes first and the others hear what it found.
        """
        connection = await options.gate.through(lambda: connect(options), clock)
        return cls(connection, options, clock, chunks=chunks, next_message=next_message)

    @property
    def ready(self) -> bool:
        """Whether a transaction may go on that has begun behind the last one: nothing came that was not asked for."""
        return self._stage is Stage.READY and self._connection.sound

    @property
    def usable(self) -> bool:
        """Whether another transaction may begin."""
        return self._stage is Stage.READY and self._connection.alive

    def abort(self) -> None:
        """Drop the connection; before the message's end, the relay forgets it."""
        self._stage = after(self._stage, Seen.LOST)
        self._connection.abort()

    def quit(self) -> None:
        """Say goodbye without waiting for an answer."""
        with suppress(Transient):
            self._connection.send(QUIT, 1)
        self._stage = after(self._stage, Seen.LOST)
        self._connection.close()

    def part(self, parted: Callable[[], None]) -> None:
        """Say goodbye; `parted` is told once the relay has closed the connection (RFC 5321 4.1.1.10), or GOODBYE_S on.

        At once where it is lost.
        """
        self._stage = after(self._stage, Seen.LOST)
        try:
            self._connection.send(QUIT, 1)
        except Transient:
            self._connection.close()
            parted()
        else:
            self._connection.part(parted, GOODBYE_S)

    async def transact(
        self, message: Message, *, before_final_dot: BeforeDot, prepared: Prepared | None = None
    ) -> dict[str, Reply]:
        """Deliver one message; gives the reply that settles each recipient.

        `before_final_dot` runs while the body streams and is given the recipients refused so far; the message's end
        waits for it, and whatever it raises drops the connection. It comes to its end also where that is lost
        meanwhile. `prepared`: its envelope is out already, behind the message before. Raises Transient before the end,
        DotUnanswered after it; ChunksUnknown where nothing of the message is out; AuthRefused and Permanent where the
        relay wants a login, or TLS, first.
        """
        is_out = prepared is not None
        try:
            made = prepared or await self._prepared(message)
        except BaseException:
            self.abort()
            raise
        if isinstance(made, Reply):
            return dict.fromkeys(message.rcpt_to, made)
        self.transactions += 1
        settled = dict(made.apart)
        try:
            accepted = await self._envelope(made, settled, is_out=is_out)
            if not accepted and (wanted := wanted_first(settled.values(), self._options)) is not None:
                raise wanted
            if accepted:
                await self._message(made.body, accepted, settled, before_final_dot)
        except MailbusError as exc:
            stage = self._stage
            self.abort()
            if stage is Stage.DOT:
                raise DotUnanswered(exc.what, where=self._options.where, settled=settled) from exc
            exc.where = exc.where or self._options.where
            raise
        except BaseException:
            self.abort()
            raise
        self.used_at = self._clock.monotonic()
        return settled

    async def _prepared(self, message: Message) -> Prepared | Reply:
        if len(message.data) < THREAD_FROM_BYTES:
            return prepare(message, self.offer)
        return await asyncio.to_thread(prepare, message, self.offer)

    async def _envelope(self, made: Prepared, refused: dict[str, Reply], *, is_out: bool) -> list[str]:
        """MAIL, RCPT, DATA or a first chunk; fills `refused`, gives who was accepted, in stage BODY if anybody was."""
        timeouts = self._options.timeouts
        first = [RSET] if self._dirty or is_out else []
        self._stage = after(self._stage, Seen.MAIL)
        # RFC 2920 3.1: RSET, MAIL, RCPT may stand anywhere in a group, DATA only at its end.
        pipelined = self.offer.pipelining
        if pipelined and not is_out:
            group = [*first, *made.commands]
            self._connection.send(b"".join(group), len(group))
        if first and not (await self._ask(RSET, pipelined, min(timeouts.mail_s, RSET_TIMEOUT_S))).accepted:
            raise PeerError("RSET was refused")
        self._dirty = True
        said = await self._ask(made.mail, pipelined, timeouts.mail_s)
        mail = _settling(said)
        accepted: list[str] = []
        for address, command in zip(made.rcpt_to, made.rcpt, strict=True):
            if said.code == SERVICE_CLOSING or (mail is not None and not pipelined):
                refused[address] = said
                continue
            said = await self._ask(command, pipelined, timeouts.rcpt_s)
            refusal = mail or _settling(_of_recipient(said))
            if refusal is None:
                accepted.append(address)
            else:
                refused[address] = refusal
        if said.code == SERVICE_CLOSING:
            # The service closes: whoever was accepted has nothing yet.
            refused.update(dict.fromkeys(accepted, said))
            self._stage = after(self._stage, Seen.REFUSED)
            self.abort()
            return []
        return await self._go_ahead(made.go, pipelined, accepted, refused)

    async def _go_ahead(self, go: bytes, pipelined: bool, accepted: list[str], refused: dict[str, Reply]) -> list[str]:
        if not accepted and not pipelined:
            self._stage = after(self._stage, Seen.REFUSED)
            return []
        try:
            said = await self._ask(go, pipelined, self._options.timeouts.data_s)
        except Transient as exc:
            if self.offer.chunks and self.transactions == 1:
                # Told: some end the connection instead of saying that they do not know BDAT.
                raise ChunksUnknown(exc.what) from exc
            raise
        if said.code == START_INPUT and not self.offer.chunks:
            self._stage = after(self._stage, Seen.GO_AHEAD)
            if not accepted:
                # RFC 2920 3.1 lets one send a lone dot here; dropping the connection cannot deliver an empty message.
                self.abort()
            return accepted
        if self.offer.chunks and said.accepted:
            self._stage = after(self._stage, Seen.GO_AHEAD if accepted else Seen.REFUSED)
            return accepted
        if said.accepted or said.code < 400:
            raise PeerError(f"{go[:4].decode()} was answered with {said.code}")
        if self.offer.chunks and said.code in COMMAND_UNKNOWN and accepted:
            raise ChunksUnknown(f"BDAT was offered, and is answered with {said.code}")
        self._stage = after(self._stage, Seen.REFUSED)
        refused.update(dict.fromkeys(accepted, said))
        if said.code == SERVICE_CLOSING:
            self.abort()
        return []

    async def _ask(self, command: bytes, pipelined: bool, timeout_s: float) -> Reply:
        if not pipelined:
            self._connection.send(command, 1)
        return await self._connection.reply(timeout_s)

    async def _message(
        self, body: memoryview, accepted: list[str], settled: dict[str, Reply], before_final_dot: BeforeDot
    ) -> None:
        """The message to those who were accepted; fills `settled` with what was said of them."""
        # RFC 3030 2: a chunk counts once all of it came, so its last two bytes are its end as the dot is that of DATA.
        begin, end = b"", b".\r\n"
        if self.offer.chunks:
            begin, body, end = b"BDAT %d LAST\r\n" % len(body), body[:-2], bytes(body[-2:])
        # RFC 2033 4.2: a reply for each who was accepted, in the order of the RCPT commands.
        whose = [[one] for one in accepted] if self._options.lmtp else [accepted]
        if len(body) <= JOINED_BYTES:
            await before_final_dot(settled)
            await self._end(b"".join((begin, body, end)), whose, settled)
            return
        early = await self._ahead(begin, body, settled, before_final_dot)
        if early is None:
            await self._end(end, whose, settled, expected=1)
        else:
            settled.update(dict.fromkeys(accepted, early))
            self.abort()

    async def _ahead(
        self, begin: bytes, body: memoryview, refused: Mapping[str, Reply], before_final_dot: BeforeDot
    ) -> Reply | None:
        """Everything but the end, while `before_final_dot` runs; gives a refusal that came before its time.

        `before_final_dot` comes to its end also where the connection is lost: what it does may be done already.
        """
        # The one reply that may come before the end is a refusal of all of it.
        self._connection.send(begin, 1)
        try:
            async with TaskGroup() as group:
                group.create_task(_awaited(before_final_dot(refused)), name="before_final_dot")
                streaming = group.create_task(self._stream(body), name="body")
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from None
        if (lost := streaming.result()) is not None:
            raise lost
        if not self._connection.spoke:
            return None
        said = await self._connection.reply(0)
        if not (said.transient or said.refused):
            raise PeerError(f"the message was answered with {said.code} before its end")
        return said

    async def _stream(self, body: memoryview) -> Transient | None:
        """Send it; gives why it could not be."""
        try:
            for start in range(0, len(body), BLOCK_BYTES):
                self._connection.send(body[start : start + BLOCK_BYTES], 0)
                await self._connection.drain(self._options.timeouts.block_s)
                if self._connection.spoke:
                    break
        except Transient as exc:
            return exc
        return None

    async def _end(self, end: bytes, whose: list[list[str]], settled: dict[str, Reply], *, expected: int = 0) -> None:
        """The message's end, with all that is not out yet, and the replies to it; so many are expected already."""
        # From here on a lost connection proves nothing: the stage changes before the first byte goes.
        step("smtp.dot")
        if not self._connection.alive:
            raise self._connection.lost
        # Not behind an end that has several answers: one that is missing would be taken from the next mail's.
        behind = self._behind() if not expected and len(whose) == 1 else []
        self._stage = after(self._stage, Seen.DOT)
        self._connection.send(b"".join((end, *behind)), len(whose) - expected + len(behind))
        began = self._clock.monotonic()
        step("smtp.dot.sent")
        replies: list[Reply] = []
        for these in whose:
            said = await self._connection.reply(self._options.timeouts.final_s)
            if not (said.accepted or said.transient or said.refused):
                raise PeerError(f"the message was answered with {said.code}")
            settled.update(dict.fromkeys(these, _of_recipient(said) if self._options.lmtp else said))
            replies.append(said)
        self._stage = after(self._stage, Seen.ANSWERED)
        self._quick = self._clock.monotonic() - began < QUICK_S
        self._dirty = not all(said.accepted for said in replies)
        if replies[-1].code == SERVICE_CLOSING:
            self.abort()

    def _behind(self) -> list[bytes]:
        """The next message's envelope, which need not wait for this one's answer (RFC 2920 3.1).

        Not behind a connection's first: a relay that says more than it was asked is found out by that. And not behind
        one whose relay takes its time: another connection may be free sooner.
        """
        if not (self._quick and self.shared and self.offer.pipelining):
            return []
        made = self._next(self)
        # RFC 3030 2: whether a chunk that was refused leaves a transaction open is not said.
        return [] if made is None else [RSET, *made.commands]


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _of_recipient(said: Reply) -> Reply:
    """A recipient's reply; one that ends the connection is everybody's, and of one that accepts nobody asks."""
    if said.accepted or said.code == SERVICE_CLOSING:
        return said
    return Reply(said.code, said.enhanced, said.text, of_recipient=True)


def _settling(said: Reply) -> Reply | None:
    """The reply if it refuses; None if it accepts. Raises PeerError on anything else."""
    if said.accepted:
        return None
    if said.transient or said.refused:
        return said
    raise PeerError(f"a command was answered with {said.code}")
