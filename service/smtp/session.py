"""One connection to a relay and one transaction after the other on it.

Pipelined where the relay can, a reply for each recipient, and a stage that always knows whether the final dot was sent.
Used by pool.py; connect.py makes the connection. RFC 5321, RFC 2920 (PIPELINING), RFC 1870, 6152, 6531 (parameters).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from service.clock import Clock
from service.contract import REQUIRETLS
from service.errors import MailbusError, PeerError, Permanent, Transient, verdict_of
from service.observe import step
from service.smtp.connect import Connection, connect
from service.smtp.errors import DotUnanswered
from service.smtp.options import NO_EXTRAS, Extras, SmtpOptions
from service.smtp.state import Seen, Stage, after
from service.smtp.wire import Reply, mail_command, make_reply, rcpt_command, stuffed
from service.tasks import TaskGroup

BLOCK_BYTES: Final = 64 * 1024
# A body of this size gains nothing by going ahead of its dot: one write less, and it is out before a reply could come.
JOINED_BYTES: Final = 16 * 1024
SERVICE_CLOSING: Final = 421  # RFC 5321 3.8: the connection ends with it
START_INPUT: Final = 354
BeforeDot = Callable[[Mapping[str, Reply]], Awaitable[None]]


class Session:
    """One connection. Not for two transactions at once."""

    def __init__(self, connection: Connection, options: SmtpOptions, clock: Clock) -> None:
        self._connection = connection
        self._options = options
        self._clock = clock
        self._extensions = connection.extensions
        self._stage = Stage.READY
        self._dirty = False
        self.used_at = clock.monotonic()
        self.transactions = 0

    @classmethod
    async def open(cls, options: SmtpOptions, *, clock: Clock) -> "Session":
        """Connect, protect, log in, within one budget. Raises RelayUnreachable, AuthRefused, Permanent (TLS).

        Until a login has proved the credentials right, one goes first and the others hear what it found.
        """
        return cls(await options.gate.through(lambda: connect(options), clock), options, clock)

    @property
    def usable(self) -> bool:
        """Whether another transaction may begin."""
        return self._stage is Stage.READY and self._connection.alive

    def abort(self) -> None:
        """Drop the connection; before the dot, the relay forgets the message."""
        self._stage = after(self._stage, Seen.LOST)
        self._connection.abort()

    def quit(self) -> None:
        """Say goodbye without waiting for an answer."""
        with suppress(Transient):
            self._connection.send(b"QUIT\r\n", 1)
        self._stage = after(self._stage, Seen.LOST)
        self._connection.close()

    async def transact(
        self,
        mail_from: str,
        rcpt_to: Sequence[str],
        data: bytes,
        *,
        before_final_dot: BeforeDot,
        extras: Extras = NO_EXTRAS,
    ) -> dict[str, Reply]:
        """Deliver one message; gives the reply that settles each recipient.

        `before_final_dot` runs while the body streams and is given the recipients refused so far; the dot waits for
        it, and whatever it raises drops the connection. Raises Transient before the dot, DotUnanswered after it.
        """
        parameters, refusal = self._parameters((mail_from, *rcpt_to), data, extras.mail)
        if refusal is not None:
            return dict.fromkeys(rcpt_to, refusal)
        try:
            commands = [mail_command(mail_from, parameters), *self._rcpt_commands(rcpt_to, extras)]
            body = stuffed(data) if len(data) < BLOCK_BYTES * 16 else await asyncio.to_thread(stuffed, data)
        except Permanent as exc:
            return dict.fromkeys(rcpt_to, make_reply(554, [f"5.6.0 {exc.what}"]))
        self.transactions += 1
        refused: dict[str, Reply] = {}
        try:
            accepted = await self._envelope(commands, rcpt_to, refused)
            if not accepted:
                return refused
            if len(body) <= JOINED_BYTES:
                early = None
                await before_final_dot(refused)
                final = await self._dot(body)
            else:
                early = await self._body(body, refused, before_final_dot)
                final = early or await self._dot()
        except DotUnanswered:
            raise
        except MailbusError as exc:
            stage = self._stage
            self.abort()
            if stage is Stage.DOT:
                raise DotUnanswered(exc.what, where=self._options.where, refused=refused) from exc
            exc.where = exc.where or self._options.where
            raise
        except BaseException:
            self.abort()
            raise
        self.used_at = self._clock.monotonic()
        if early or final.code == SERVICE_CLOSING:
            self.abort()
        return refused | dict.fromkeys(accepted, final)

    def _rcpt_commands(self, rcpt_to: Sequence[str], extras: Extras) -> list[bytes]:
        # RFC 3461 is for the relays on the way; without it the mail goes all the same, and reports come as they do.
        rcpt = extras.rcpt if "dsn" in self._extensions else {}
        return [rcpt_command(address, rcpt.get(address, {})) for address in rcpt_to]

    def _parameters(
        self, addresses: Sequence[str], data: bytes, given: Mapping[str, str | None]
    ) -> tuple[dict[str, str | None], Reply | None]:
        """MAIL FROM's parameters, or the refusal that this relay would have to give."""
        parameters: dict[str, str | None] = {}
        if "size" in self._extensions:
            limit = self._extensions["size"].strip()
            # RFC 1870 section 4: 0 or nothing is no limit.
            if limit.isdigit() and 0 < int(limit) < len(data):
                return {}, make_reply(552, [f"5.3.4 {len(data)} bytes; the relay takes {int(limit)}"])
            parameters["SIZE"] = str(len(data))
        if not data.isascii():
            if "8bitmime" not in self._extensions:
                return {}, make_reply(554, ["5.6.3 the message holds 8-bit bytes and the relay has no 8BITMIME"])
            parameters["BODY"] = "8BITMIME"
        if not all(address.isascii() for address in addresses):
            if "smtputf8" not in self._extensions:
                return {}, make_reply(553, ["5.6.7 an address is not ASCII and the relay has no SMTPUTF8"])
            parameters["SMTPUTF8"] = None
        if REQUIRETLS in given and not (self._connection.secure and "requiretls" in self._extensions):
            # RFC 8689 4.2.1: it may go nowhere else, so it goes nowhere.
            return {}, make_reply(550, ["5.7.30 REQUIRETLS support required: the relay does not offer it under TLS"])
        if "dsn" in self._extensions:
            return parameters | dict(given), None
        return parameters | ({REQUIRETLS: None} if REQUIRETLS in given else {}), None

    async def _envelope(self, commands: list[bytes], rcpt_to: Sequence[str], refused: dict[str, Reply]) -> list[str]:
        """MAIL, RCPT, DATA; fills `refused`, gives who was accepted, in stage BODY if anybody was."""
        timeouts = self._options.timeouts
        first = [b"RSET\r\n"] if self._dirty else []
        self._stage = after(self._stage, Seen.MAIL)
        # RFC 2920 3.1: RSET, MAIL, RCPT may stand anywhere in a group, DATA only at its end.
        pipelined = "pipelining" in self._extensions
        if pipelined:
            group = [*first, *commands, b"DATA\r\n"]
            self._connection.send(b"".join(group), len(group))
        if first and not (await self._ask(first[0], pipelined, timeouts.mail_s)).accepted:
            raise PeerError("RSET was refused")
        self._dirty = True
        said = await self._ask(commands[0], pipelined, timeouts.mail_s)
        mail = _settling(said)
        accepted: list[str] = []
        for address, command in zip(rcpt_to, commands[1:], strict=True):
            if said.code == SERVICE_CLOSING or (mail is not None and not pipelined):
                refused[address] = said
                continue
            said = await self._ask(command, pipelined, timeouts.rcpt_s)
            refusal = mail or _settling(said)
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
        return await self._data(pipelined, accepted, refused)

    async def _data(self, pipelined: bool, accepted: list[str], refused: dict[str, Reply]) -> list[str]:
        if not accepted and not pipelined:
            self._stage = after(self._stage, Seen.REFUSED)
            return []
        said = await self._ask(b"DATA\r\n", pipelined, self._options.timeouts.data_s)
        if said.code == START_INPUT:
            self._stage = after(self._stage, Seen.GO_AHEAD)
            if not accepted:
                # RFC 2920 3.1 lets one send a lone dot here; dropping the connection cannot deliver an empty message.
                self.abort()
            return accepted
        if said.accepted or said.code < 400:
            raise PeerError(f"DATA was answered with {said.code}")
        refused.update(dict.fromkeys(accepted, said))
        self._stage = after(self._stage, Seen.REFUSED)
        if said.code == SERVICE_CLOSING:
            self.abort()
        return []

    async def _ask(self, command: bytes, pipelined: bool, timeout_s: float) -> Reply:
        if not pipelined:
            self._connection.send(command, 1)
        return await self._connection.reply(timeout_s)

    async def _body(self, body: bytes, refused: Mapping[str, Reply], before_final_dot: BeforeDot) -> Reply | None:
        """Everything but the dot, while `before_final_dot` runs; gives a refusal that came before its time."""
        try:
            async with TaskGroup() as group:
                group.create_task(_awaited(before_final_dot(refused)), name="before_final_dot")
                group.create_task(self._stream(body), name="body")
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from None
        if not self._connection.spoke:
            return None
        said = await self._connection.reply(0)
        if not (said.transient or said.refused):
            raise PeerError(f"the message was answered with {said.code} before its end")
        return said

    async def _stream(self, body: bytes) -> None:
        view = memoryview(body)
        for start in range(0, len(body), BLOCK_BYTES):
            # The one reply that may come before the dot is a refusal of all of it.
            self._connection.send(view[start : start + BLOCK_BYTES], 1 if start == 0 else 0)
            await self._connection.drain(self._options.timeouts.block_s)
            if self._connection.spoke:
                return

    async def _dot(self, body: bytes | None = None) -> Reply:
        """The dot, and all that goes with it where nothing of the message is out yet; the reply to it."""
        # From here on a lost connection proves nothing: the stage changes before the first byte goes.
        step("smtp.dot")
        if not self._connection.alive:
            raise self._connection.lost
        self._stage = after(self._stage, Seen.DOT)
        if body is None:
            self._connection.send(b".\r\n", 0)
        else:
            self._connection.send(body + b".\r\n", 1)
        step("smtp.dot.sent")
        said = await self._connection.reply(self._options.timeouts.final_s)
        if not (said.accepted or said.transient or said.refused):
            raise PeerError(f"the message was answered with {said.code}")
        self._stage = after(self._stage, Seen.ANSWERED)
        self._dirty = not said.accepted
        return said


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _settling(said: Reply) -> Reply | None:
    """The reply if it refuses; None if it accepts. Raises PeerError on anything else."""
    if said.accepted:
        return None
    if said.transient or said.refused:
        return said
    raise PeerError(f"an envelope command was answered with {said.code}")
