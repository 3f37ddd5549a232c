"""nats-py's client as mailbus needs it. Used by connection.py; its private names are pinned by tests/bus.

What it changes: errors of the server do not end it, no exception ends its reader, and what comes in masses takes a
shorter way.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import nats.aio.client
import nats.errors
from nats.aio.client import Client, RawCredentials
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from service.aside import aside
from service.bus.asks import Asks
from service.bus.refusals import Refusals
from service.errors import Permanent, Transient
from service.observe import log
from service.tasks import cancellable

NO_TLS: Final = "the server offers no TLS"
# With so many answers under way frames are gathered for a moment: a write costs as much as building three of them.
BUSY_ASKS: Final = 4
GATHER_S: Final = 0.001
# Subject, reply subject, payload, header block as it came (empty without one).
Listener = Callable[[bytes, bytes, bytes, bytes], None]

# Where fast-mail-parser is installed, nats-py parses headers with it and every value becomes a list: deleted
# keys come back as live, and an expiry never reaches a watcher.
nats.aio.client.parse_email = None  # type: ignore[attr-defined]  # switched off, not replaced


class BusClient(Client):
    """nats-py's client, which never gives up, and hands messages over at once to whoever listens in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: dict[int, Listener] = {}
        self._flushing = False
        self.asks = Asks(self)
        self.refusals = Refusals()
        # How often the server said that answers cannot be heard: whoever listens for them has to listen anew.
        self.refused_inboxes = 0
        # Reads the files of certificates, which are renewed while the process runs. Raises OSError (SSLError is one).
        self.read_tls: Callable[[], ssl.SSLContext] | None = None
        # The same of `password`, `token` and `nkey_seed`, and of `creds`. Raise OSError, ValueError, Permanent.
        self.read_secrets: Callable[[], dict[str, str]] | None = None
        self.read_creds: Callable[[], str] | None = None

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """As nats-py's. Raises NotPermitted at once, where nats-py waits for an answer that cannot come."""
        async with self.refusals.permitted(subject):
            return await super().request(subject, payload, timeout, old_style, headers)

    def heard_error(self, error: Exception, *, away: bool) -> None:
        """The server, or the client itself, is not content. `away`: there is no connection."""
        refused = self.refusals.heard(error, away=away)
        if refused is None:
            return
        if refused.is_inbox:
            self._resp_sub_prefix = None  # the next request listens anew, for the right may come
            self.refused_inboxes += 1
        self.asks.refused(refused)

    async def listen(self, subject: str, heard: Listener) -> Subscription:
        """Call `heard` for each message, before the next one is read: no Msg, no queue, no task."""
        subscription = await self.subscribe(subject)
        self._listeners[subscription._id] = heard
        return subscription

    def put(self, *frames: bytes) -> None:
        """Put ready-made frames on the wire, together with their neighbours. Raises where there is no connection.

        As nats-py's `_send_command`; whoever puts much waits for `emptied` first.
        """
        self._add(frames)
        if self.asks.under_way < BUSY_ASKS:
            self._flush_soon()
        elif not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_later(GATHER_S, self._flush_gathered)

    async def send(self, frames: Sequence[bytes]) -> None:
        """The same, at once, and once there is room for more."""
        self._add(frames)
        await self._flush_pending()

    def _add(self, frames: Sequence[bytes]) -> None:
        if not self.is_connected:
            raise nats.errors.ConnectionReconnectingError
        self._pending.extend(frames)
        self._pending_data_size += sum(map(len, frames))

    async def pour(self, groups: Iterable[Sequence[bytes]]) -> None:
        """Put ready-made frames on the wire group by group, each once the one before was written: whatever others have
        comes in between, and waits for no more than a group of each."""
        for frames in groups:
            await self.emptied()
            await self.roomy()
            self.put(*frames)

    @property
    def full(self) -> bool:
        """Whether as much is pending as may be."""
        return self._pending_data_size > self._max_pending_size > 0

    async def roomy(self) -> None:
        """Until more may be put. Whoever waited beside others looks again: each of them may have much."""
        while self.full and self.is_connected:
            await self.emptied()

    async def emptied(self) -> None:
        """Until what is pending was written."""
        with cancellable():
            await self._flush_pending(force_flush=True)

    def _flush_gathered(self) -> None:
        self._flushing = False
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Wake nats-py's flusher, which writes all that is pending; as its own `_flush_pending` does."""
        queue = self._flush_queue
        if queue is not None and queue.empty() and self.is_connected:
            queue.put_nowait(asyncio.get_running_loop().create_future())

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        heard = self._listeners.get(sid)
        if heard is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            heard(subject, reply, data, headers or b"")
        except Exception as exc:  # noqa: BLE001 a stranger who guessed an inbox must not end the reader
            log.warning("nats_message_unreadable", error=type(exc).__name__)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._listeners.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _process_headers(self, headers: Any) -> dict[str, str] | None:
        # An exception here ends the task that reads for everybody, and the client does not notice.
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
        except Exception as exc:  # noqa: BLE001 whatever a stranger's bytes may raise
            log.warning("nats_headers_unreadable", error=type(exc).__name__)
            return None
        return found

    async def _connect_to_server(self, server: Any) -> None:
        # Files that say nothing keep nobody from what was read before.
        if self.read_tls is not None:
            try:
                self.options["tls"] = await aside(self.read_tls, where="nats.tls", kind="nats")
            except (OSError, Transient) as exc:
                log.warning("nats_tls_not_read", error=str(exc))
        try:
            if self.read_secrets is not None:
                self._use(await aside(self.read_secrets, where="nats secrets", kind="nats"))
            if self.read_creds is not None:
                # Not by nats-py itself, which would read it on the event loop.
                self._user_credentials = RawCredentials(await aside(self.read_creds, where="nats.creds", kind="nats"))
                self._setup_nkeys_connect()
        except (OSError, ValueError, Permanent, Transient) as exc:
            log.warning("nats_secret_not_read", error=str(exc))
        await super()._connect_to_server(server)

    def _use(self, secrets: dict[str, str]) -> None:
        for name, secret in secrets.items():
            if name == "nkey_seed":
                self._nkeys_seed_str = secret
                self._setup_nkeys_connect()  # the public key goes with it
            else:
                self.options[name] = secret

    def _connect_command(self) -> bytes:
        # nats-py would send the credentials in the clear to a server that does not ask for TLS.
        if self.options.get("tls") is not None and not self._server_info.get("tls_required"):
            raise nats.errors.Error(NO_TLS)
        command: bytes = super()._connect_command()
        return command

    async def _process_err(self, err_msg: str) -> None:
        # nats-py closes for good on nearly every -ERR: an account that was reloaded, a limit on connections. The
        # server has closed this connection; whether the next one fares better is not ours to say.
        if "permissions violation" in err_msg.lower():
            await super()._process_err(err_msg)
            return
        log.warning("nats_refused", error=err_msg.strip("' \r\n"))
        await self._process_op_err(nats.errors.Error(f"nats: {err_msg}"))
