"""A form → a token endpoint's answer, over TLS that is verified. Used by tokens.py.

No redirect is followed, no proxy of the environment is used, no cookie is kept: a secret goes to the one host that
settings name and nowhere else.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from service.errors import MailbusError, PeerError, Permanent, Transient
from service.lookup import addresses
from service.oauth.options import OAuthOptions
from service.oauth.wire import Answer
from service.reach import refused

# The largest answers hold two tokens of some kilobytes.
ANSWER_LIMIT_BYTES: Final = 256 * 1024
HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "mailbus"}


async def ask(options: OAuthOptions, form: Mapping[str, str]) -> Answer:
    """Post the form. Raises Transient, PeerError, or Permanent where the certificate does not hold."""
    # A connection for each question: an account has one an hour.
    connector = aiohttp.TCPConnector(
        ssl=options.tls,
        limit=1,
        force_close=True,
        resolver=_Resolver(),
        socket_factory=partial(_permitted_socket, options),
    )
    timeout = aiohttp.ClientTimeout(total=options.timeout_s)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            ) as client,
            client.post(options.token_url, data=dict(form), headers=HEADERS, allow_redirects=False) as response,
        ):
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > ANSWER_LIMIT_BYTES:
                    raise PeerError(f"an answer of over {ANSWER_LIMIT_BYTES} bytes", where=options.where)
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, headers, bytes(body))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
        # from None: a library's exception may hold the request, and the request holds secrets.
        raise _verdict(exc, options) from None


class _Resolver(AbstractResolver):
    """As for mail servers: a name that nobody answers for holds up no other."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """What a name leads to."""
        return [
            ResolveResult(
                hostname=host, host=str(place[0]), port=port, family=kind, proto=protocol, flags=socket.AI_NUMERICHOST
            )
            for kind, _, protocol, _, place in await addresses(host, port)
            if family in (socket.AF_UNSPEC, kind)
        ]

    async def close(self) -> None:
        """Nothing is kept."""


def _permitted_socket(options: OAuthOptions, place: aiohttp.AddrInfoType) -> socket.socket:
    """For an address that is about to be connected, whatever name led there."""
    family, kind, protocol, _, address = place
    if not options.reach.permits(str(address[0])):
        host = urlsplit(options.token_url).hostname or ""
        raise refused(host, str(address[0]), where=options.where)
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    return made


def _verdict(exc: Exception, options: OAuthOptions) -> MailbusError:
    match exc:
        case aiohttp.ClientConnectorCertificateError():
            reason = exc.certificate_error
            said = reason.verify_message if isinstance(reason, ssl.SSLCertVerificationError) else "it does not hold"
            return Permanent(
                f"the token endpoint's certificate is refused: {said}",
                where=options.where,
                remedy="correct token_url, or name the authority in oauth2.ca",
            )
        case asyncio.TimeoutError():
            return Transient(f"no answer from the token endpoint in {options.timeout_s:g} s", where=options.where)
        case aiohttp.ClientConnectorError():
            said = exc.os_error.strerror or type(exc.os_error).__name__
            return Transient(
                f"the token endpoint cannot be reached: {said}", where=options.where, remedy="check token_url"
            )
        case _:
            return Transient(f"the token endpoint broke off: {type(exc).__name__}", where=options.where)
