"""What the tests of a relay's connection share: a mail, and relays with options."""

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import trustme

from service.clock import SystemClock
from service.contract import Security
from service.smtp import NO_EXTRAS, Extras, Relay, Reply, SmtpOptions
from tests.servers.smtp import ScriptedRelay

MESSAGE = b"Subject: x\r\n\r\nhello\r\n"


class Dot:
    """before_final_dot that remembers."""

    def __init__(self) -> None:
        self.calls: list[Mapping[str, Reply]] = []

    async def __call__(self, refused: Mapping[str, Reply]) -> None:
        self.calls.append(dict(refused))


def options(server: ScriptedRelay, **changes: Any) -> SmtpOptions:
    fields: dict[str, Any] = {
        "account": "a", "host": "127.0.0.1", "port": server.port, "security": Security.NONE, "login": False
    } | changes  # fmt: skip
    return SmtpOptions(**fields)


def relay_to(server: ScriptedRelay, **changes: Any) -> Relay:
    return Relay(options(server, **changes), SystemClock())


async def deliver(
    server: ScriptedRelay, *rcpt_to: str, data: bytes = MESSAGE, extras: Extras = NO_EXTRAS, **changes: Any
) -> dict[str, Reply]:
    relay = relay_to(server, **changes)
    try:
        return await relay.deliver("me@x", rcpt_to or ("a@x",), data, before_final_dot=Dot(), extras=extras)
    finally:
        await relay.close()


def server_context(authority: trustme.CA, name: str = "127.0.0.1", **issue: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **issue).configure_cert(context)
    return context


def wrong_context(authority: trustme.CA, wrong: str) -> ssl.SSLContext:
    """A server's whose certificate, or version, no client may take: `host`, `self-signed`, `expired` or `tls 1.1`."""
    if wrong == "host":
        return server_context(authority, "other.example")
    if wrong == "expired":
        return server_context(authority, not_after=datetime.now(UTC) - timedelta(days=1))
    context = server_context(trustme.CA() if wrong == "self-signed" else authority)
    if wrong == "tls 1.1":
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
