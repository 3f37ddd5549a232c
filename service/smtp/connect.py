"""Options → a connection to a relay that is protected, greeted and logged in, and the replies that come on it.

It and protocol.py alone know aiosmtplib: that connects (TCP, TLS, STARTTLS, EHLO, AUTH); our protocol under its client
then takes over. The private names used stand in tests/smtp/test_aiosmtplib_pins.py. Used by session.py.
RFC 5321, RFC 2033 (LMTP), RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 7628 (tokens in AUTH).
"""

import asyncio
import ssl
from collections.abc import Awaitable
from typing import Any, Final, NoReturn

import aiosmtplib

from service.contract import Security, hidden, without_credentials
from service.errors import AuthRefused, MailbusError, PeerError, Permanent, Transient
from service.login import TokenLogin, mechanism_for, said_of_token
from service.reach import ANYWHERE, Reach, open_socket
from service.smtp.errors import SERVICE_CLOSING, RelayFull, RelayUnreachable
from service.smtp.options import SmtpOptions
from service.smtp.protocol import TLS_REMEDY, Protocol, writable
from service.smtp.wire import make_reply, printable

# RFC 4954 section 6: 504 is the one answer after which another mechanism may do.
MECHANISM_UNKNOWN: Final = 504
# RFC 4954 section 4 and RFC 5321 4.5.3.1.4: AUTH with its initial response is a command line like any other.
COMMAND_LIMIT_BYTES: Final = 512
SHOWN_CHARS: Final = 300
SILENT_REMEDY: Final = "check host, port and `security`: on port 465 it is `tls`"
NEW_PASSWORD: Final = "set a new password"
NEW_TOKEN: Final = "check `username` and `oauth2.scope`, and whether SMTP AUTH is switched on"
LMTP_REMEDY: Final = "outgoing.smtp.protocol: smtp, or another port"


class _Client(aiosmtplib.SMTP):
    """aiosmtplib with our protocol under it, no DNS look-up of our own name, and one try at AUTH a connection."""

    made: Protocol | None = None  # outlives close(), to tell what the relay did wrong
    reach: Reach = ANYWHERE
    lmtp = False
    secrets: tuple[str, ...] = ()  # what was said in AUTH beside the password: nobody is shown it

    async def _get_default_local_hostname(self) -> str:
        return "[127.0.0.1]"

    async def _create_connection(self, timeout: float | None) -> aiosmtplib.SMTPResponse:
        loop = asyncio.get_running_loop()
        made = await open_socket(self.hostname or "", self.port or 0, self.reach, where="")
        transport, protocol = await loop.create_connection(
            lambda: Protocol(self._on_connection_lost),
            sock=made,
            ssl=self.tls_context if self.use_tls else None,
            server_hostname=self.hostname if self.use_tls else None,
            ssl_handshake_timeout=timeout if self.use_tls else None,
        )
        self.protocol = self.made = protocol
        self.transport = transport
        # RFC 5321 4.1.1.1: an address literal where there is no name to give; names inside a cluster mean nothing.
        host = transport.get_extra_info("sockname")[0]
        self.local_hostname = f"[IPv6:{host.partition('%')[0]}]" if ":" in host else f"[{host}]"
        response = await protocol.read_response(timeout=timeout)
        if response.code != aiosmtplib.SMTPStatus.ready:
            raise aiosmtplib.SMTPConnectResponseError(response.code, response.message)
        return response

    async def ehlo(self, **options: Any) -> aiosmtplib.SMTPResponse:
        """EHLO; LHLO where LMTP is spoken, and never HELO instead (RFC 2033 4.1)."""
        if not self.lmtp:
            return await super().ehlo(**options)
        said = await self.execute_command(b"LHLO", (self.local_hostname or "").encode("ascii"))
        if said.code >= 500:
            words = make_reply(said.code, said.message.split("\n"))
            raise Permanent(f"the server speaks no LMTP: {words}"[:200], remedy=LMTP_REMEDY)
        if said.code != aiosmtplib.SMTPStatus.completed:
            raise aiosmtplib.SMTPResponseException(said.code, said.message)
        self.last_ehlo_response = said
        return said

    async def authenticate(self, username: str, password: str) -> None:
        """AUTH by the best mechanism both know; another one only where the relay says it does not know this one.

        aiosmtplib's own login tries every mechanism after a refusal: three wrong passwords a connection.
        """
        encrypted = self.get_transport_info("sslcontext") is not None
        wanted = ("plain", "login", "cram-md5") if encrypted else ("cram-md5", "plain", "login")
        ways = {"plain": self.auth_plain, "login": self.auth_login, "cram-md5": self.auth_crammd5}
        offered = [name for name in wanted if name in self.server_auth_methods]
        if not offered:
            raise Permanent(
                "the relay offers no way to log in that mailbus knows (PLAIN, LOGIN, CRAM-MD5)",
                remedy="outgoing.smtp.login: false, or another port or security",
            )
        for i, name in enumerate(offered):
            try:
                await ways[name](username.encode(), password.encode())
            except aiosmtplib.SMTPAuthenticationError as exc:
                if exc.code == MECHANISM_UNKNOWN and i + 1 < len(offered):
                    continue
                raise
            return

    async def present(self, login: TokenLogin) -> None:
        """AUTH with an access token, by the best mechanism both know (RFC 7628; XOAUTH2)."""
        mechanism = mechanism_for(self.server_auth_methods)
        if mechanism is None:
            raise Permanent(
                "the relay takes no OAuth 2 tokens", remedy="write a password instead of `oauth2`, or correct the host"
            )
        initial = mechanism.initial(login)
        self.secrets = (login.token, initial)
        name = mechanism.name.encode("ascii")
        if len(f"AUTH {mechanism.name} {initial}\r\n") > COMMAND_LIMIT_BYTES:
            said = await self.execute_command(b"AUTH", name)
            if said.code == aiosmtplib.SMTPStatus.auth_continue:
                said = await self.execute_command(initial.encode("ascii"))
        else:
            said = await self.execute_command(b"AUTH", name, initial.encode("ascii"))
        detail = ""
        if said.code == aiosmtplib.SMTPStatus.auth_continue:
            detail = said_of_token(said.message)
            said = await self.execute_command(mechanism.farewell.encode("ascii"))
        if said.code != aiosmtplib.SMTPStatus.auth_successful:
            message = f"{said.message} ({detail})" if detail else said.message
            raise aiosmtplib.SMTPAuthenticationError(said.code, message)


class Connection:
    """A connection that is ours now: writes, replies in order, and how it stands."""

    def __init__(self, client: _Client, protocol: Protocol) -> None:
        self._client = client
        self._protocol = protocol
        # aiosmtplib keeps them in lower case.
        self.extensions = dict(client.esmtp_extensions)
        self.send = protocol.send
        self.drain = protocol.drain
        self.reply = protocol.reply
        self.part = protocol.part
        protocol.take_over()

    @property
    def alive(self) -> bool:
        """Whether more may be sent and nothing unasked came."""
        return self._protocol.alive

    @property
    def sound(self) -> bool:
        """Whether nothing came that was not asked for."""
        return self._protocol.broken is None

    @property
    def spoke(self) -> bool:
        """Whether a reply is there to be read."""
        return self._protocol.spoke

    @property
    def secure(self) -> bool:
        """Whether it goes through TLS."""
        return self._client.get_transport_info("sslcontext") is not None

    @property
    def lost(self) -> Transient:
        """Why it is not alive."""
        return self._protocol.broken or Transient("the relay closed the connection")

    def abort(self) -> None:
        """Drop it at once."""
        _abort(self._client)

    def close(self) -> None:
        """End it after what is written."""
        self._client.close()


async def connect(options: SmtpOptions) -> Connection:
    """Connect, protect, log in, within one budget. Raises RelayUnreachable, AuthRefused, Permanent (TLS)."""
    tokens = options.tokens
    if tokens is None or not options.login:
        return await _connect(options, None)
    token = await _token(tokens.get(), options)
    try:
        return await _connect(options, token)
    except AuthRefused:
        # It may be void before its time: one more try, with another and on another connection.
        return await _connect(options, await _token(tokens.renew(token), options))


async def _token(coming: Awaitable[str], options: SmtpOptions) -> str:
    """A token. Without one there is no connection either: requests are put off as if the relay were away."""
    try:
        return await coming
    except Transient as exc:
        raise RelayUnreachable(
            exc.what, where=exc.where or options.where, remedy=exc.remedy, retry_after_s=exc.retry_after_s
        ) from exc


async def _connect(options: SmtpOptions, token: str | None) -> Connection:
    tls = options.tls
    if tls is None and options.security is not Security.NONE:
        tls = await asyncio.to_thread(ssl.create_default_context)
    client = _Client(
        hostname=options.host,
        port=options.port,
        timeout=options.timeouts.connect_s,
        use_tls=options.security is Security.TLS,
        start_tls=options.security is Security.STARTTLS,  # never None: that would fall back to clear text
        tls_context=tls,
    )
    client.reach, client.lmtp = options.reach, options.lmtp
    try:
        async with asyncio.timeout(options.timeouts.connect_s):
            await client.connect()
            if client.is_ehlo_or_helo_needed:
                await client._ehlo_or_helo_if_needed()
            if options.login and token is not None:
                await client.present(TokenLogin(options.username or "", token, options.host, options.port))
            elif options.login:
                await client.authenticate(options.username or "", options.password or "")
    except BaseException as exc:
        _abort(client)
        if isinstance(exc, Exception):
            _raise_verdict(exc, client, options)
        raise
    protocol = client.protocol
    if not isinstance(protocol, Protocol) or not protocol.is_connected:
        raise RelayUnreachable("the relay closed the connection", where=options.where)
    return Connection(client, protocol)


def _abort(client: _Client) -> None:
    if client.transport is not None:
        writable(client.transport).abort()
    client.close()


def _raise_verdict(exc: Exception, client: _Client, options: SmtpOptions) -> NoReturn:
    """Whatever connecting may raise, as one of the verdicts."""
    where = options.where
    if client.made is not None and client.made.broken is not None:
        exc = client.made.broken
    match exc:
        case PeerError():
            raise RelayUnreachable(exc.what, where=where) from exc
        case MailbusError():
            exc.where = exc.where or where
            raise exc
        case aiosmtplib.SMTPAuthenticationError() if 400 <= exc.code < 500:
            # RFC 4954 section 6: 454 is a temporary failure, and no word about the password.
            raise RelayFull(f"the relay put AUTH off: {_said(exc, client, options)}", where=where) from exc
        case aiosmtplib.SMTPAuthenticationError():
            raise AuthRefused(
                f"the relay refuses the credentials: {_said(exc, client, options)}",
                where=where,
                remedy=options.login_remedy or (NEW_TOKEN if options.tokens else NEW_PASSWORD),
            ) from exc
        case aiosmtplib.SMTPResponseException() if exc.code == SERVICE_CLOSING:
            # RFC 5321 3.8: it may answer any command.
            raise RelayFull(f"the relay said {_said(exc, client, options)}", where=where) from exc
        case aiosmtplib.SMTPConnectResponseError() if 400 <= exc.code < 500:
            raise RelayFull(f"the relay said {_said(exc, client, options)}", where=where) from exc
        case aiosmtplib.SMTPResponseException():
            raise RelayUnreachable(f"the relay said {_said(exc, client, options)}", where=where) from exc
        case ssl.SSLCertVerificationError():
            raise Permanent(
                f"TLS: {exc.verify_message}", where=where, remedy="correct host, or name the authority with `ca`"
            ) from exc
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            raise RelayUnreachable("the relay closed the connection during TLS", where=where) from exc
        case ssl.SSLError():
            raise Permanent(f"TLS: {exc.reason or exc}", where=where, remedy="check port and security") from exc
        case TimeoutError():
            what = f"no connection in {options.timeouts.connect_s:.0f} s"
            raise RelayUnreachable(what, where=where, remedy=SILENT_REMEDY) from exc
        case OSError():
            what = f"no connection: {exc.strerror or str(exc) or type(exc).__name__}"
            raise RelayUnreachable(what, where=where, remedy="check host and port") from exc
        case aiosmtplib.SMTPException() if "STARTTLS" in exc.message:
            raise Permanent(
                "the relay offers no STARTTLS: nothing is sent in the clear", where=where, remedy=TLS_REMEDY
            ) from exc
        case aiosmtplib.SMTPException():
            raise RelayUnreachable(f"the relay: {printable(exc.message)[:200]}", where=where) from exc
    raise exc


def _said(exc: aiosmtplib.SMTPResponseException, client: _Client, options: SmtpOptions) -> str:
    said = hidden(str(make_reply(exc.code, exc.message.split("\n"))), client.secrets)
    return without_credentials(said, options.username or "", options.password or "")[:SHOWN_CHARS]
