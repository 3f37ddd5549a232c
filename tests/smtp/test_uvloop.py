"""The same client on uvloop, which mailbus runs on: its transports are not asyncio's classes."""

import asyncio
from collections.abc import Mapping

import pytest
import trustme
import uvloop

from service.clock import SystemClock
from service.contract import Security
from service.smtp import DotUnanswered, Relay, Reply, SmtpOptions
from tests.servers.smtp import RelayMaker
from tests.smtp.harness import client_context, server_context


async def twice(options: SmtpOptions, data: bytes) -> list[dict[str, Reply]]:
    async def dot(refused: Mapping[str, Reply]) -> None:
        await asyncio.sleep(0)

    relay = Relay(options, SystemClock())
    try:
        return [await relay.deliver("me@x", ["a@x"], data, before_final_dot=dot) for _ in range(2)]
    finally:
        await relay.close()


@pytest.mark.parametrize("security", list(Security))
async def test_delivers_and_uses_the_connection_again(
    make_relay: RelayMaker, authority: trustme.CA, security: Security
) -> None:
    context = server_context(authority)
    where = {Security.TLS: {"tls": context}, Security.STARTTLS: {"starttls": context}, Security.NONE: {}}[security]
    server = await make_relay(**where)
    tls = None if security is Security.NONE else client_context(authority)
    options = SmtpOptions("a", "127.0.0.1", server.port, security, tls=tls, login=False)
    data = b"Subject: x\r\n\r\n" + b".\r\nline\r\n" * 50_000
    replies = await asyncio.to_thread(lambda: uvloop.run(twice(options, data)))
    assert [reply["a@x"].code for reply in replies] == [250, 250]
    assert [mail.content for mail in server.messages] == [data, data]
    assert server.connections == 1


async def test_a_loss_after_the_dot_is_uncertain(make_relay: RelayMaker) -> None:
    server = await make_relay()
    server.script.cut = ["before_reply"]
    options = SmtpOptions("a", "127.0.0.1", server.port, Security.NONE, login=False)
    with pytest.raises(DotUnanswered):
        await asyncio.to_thread(lambda: uvloop.run(twice(options, b"x\r\n")))
