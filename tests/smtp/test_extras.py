"""What a request says of its envelope, at relays that know it and at those that do not."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trustme

from service.clock import SystemClock
from service.contract import Security
from service.smtp import Extras, Relay, Reply, SmtpOptions
from tests.smtp.harness import MESSAGE, Dot, client_context, server_context

DSN = Extras({"RET": "HDRS", "ENVID": "a+2Bb"}, {"b@x": {"NOTIFY": "NEVER"}})
ANSWERS = {b"MAIL": b"250 OK", b"RCPT": b"250 OK", b"DATA": b"354 go", b".": b"250 queued", b"RSET": b"250 OK"}


@dataclass
class Wire:
    """A relay's port, and the lines it heard."""

    port: int = 0
    lines: list[str] = field(default_factory=list)

    def said(self, verb: str) -> list[str]:
        return [line for line in self.lines if line.startswith(verb)]


@asynccontextmanager
async def wire(*offered: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """A relay that offers these and takes everything."""
    heard = Wire()
    hello = "".join(f"250-{name}\r\n" for name in ("x", *offered)) + "250 HELP"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 x\r\n")
        while line := await reader.readline():
            heard.lines.append(line.decode().rstrip("\r\n"))
            answer = hello.encode() if line.startswith(b"EHLO") else None
            for start, said in ANSWERS.items():
                if line.startswith(start):
                    answer = said
            if answer is not None:
                writer.write(answer + b"\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    heard.port = server.sockets[0].getsockname()[1]
    try:
        yield heard
    finally:
        server.close()


async def deliver(port: int, extras: Extras, tls: ssl.SSLContext | None = None) -> dict[str, Reply]:
    security = Security.TLS if tls else Security.NONE
    relay = Relay(SmtpOptions("a", "127.0.0.1", port, security, tls=tls, login=False), SystemClock())
    try:
        return await relay.deliver("me@x", ["a@x", "b@x"], MESSAGE, before_final_dot=Dot(), extras=extras)
    finally:
        await relay.close()


@pytest.mark.parametrize("pipelining", [["PIPELINING"], []])
async def test_where_dsn_is_offered_reports_are_asked_for(pipelining: list[str]) -> None:
    async with wire("DSN", *pipelining) as heard:
        assert all(reply.accepted for reply in (await deliver(heard.port, DSN)).values())
    assert heard.said("MAIL") == ["MAIL FROM:<me@x> RET=HDRS ENVID=a+2Bb"]
    assert heard.said("RCPT") == ["RCPT TO:<a@x>", "RCPT TO:<b@x> NOTIFY=NEVER"]


async def test_without_dsn_the_mail_goes_all_the_same() -> None:
    async with wire("PIPELINING") as heard:
        assert all(reply.accepted for reply in (await deliver(heard.port, DSN)).values())
    assert heard.said("MAIL") + heard.said("RCPT") == ["MAIL FROM:<me@x>", "RCPT TO:<a@x>", "RCPT TO:<b@x>"]


async def test_requiretls_goes_under_tls_where_it_is_offered_and_nowhere_else(authority: trustme.CA) -> None:
    """RFC 8689: a mail that requires TLS all the way is not sent where that is not promised."""
    extras, server, client = Extras({"REQUIRETLS": None}), server_context(authority), client_context(authority)
    async with wire("REQUIRETLS", tls=server) as heard:
        assert (await deliver(heard.port, extras, client))["a@x"].accepted
        assert heard.said("MAIL") == ["MAIL FROM:<me@x> REQUIRETLS"]
    async with wire(tls=server) as without, wire("REQUIRETLS") as clear:
        for replies in (await deliver(without.port, extras, client), await deliver(clear.port, extras)):
            assert {str(reply)[:10] for reply in replies.values()} == {"550 5.7.30"}
        assert not without.said("MAIL") + clear.said("MAIL")
