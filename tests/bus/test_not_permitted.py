"""What NATS does not permit: it drops what is published there, and whoever asked hears so at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.bus import Bus, OutMessage
from service.bus.errors import NotPermitted
from tests.bus.conftest import opened
from tests.servers.nats_documented import DocumentedNats

RIGHTS = """
authorization {
  users: [
    { user: mailbus, password: secret }
    { user: narrow, password: secret, permissions: {
      publish: ["mail.status.>", "$JS.API.>"], subscribe: ["_INBOX.>"] } }
    { user: deaf, password: secret, permissions: { publish: ">", subscribe: ["mail.>"] } }
  ]
}
"""
Ask = Callable[[Bus], Awaitable[object]]
ASKED: dict[str, Ask] = {
    "a message": lambda bus: bus.publish("mail.out.a", b""),
    "a key": lambda bus: bus.key_value(bus.subjects.cursors).create("a", b""),
    "an event": lambda bus: bus.log.commit(
        [OutMessage("mail.in.a.INBOX.received", b"", {})], filter_subject="mail.in.a.INBOX.*", fence=0
    ),
    "events": lambda bus: bus.log.commit(
        [OutMessage("mail.in.a.INBOX.received", b"", {})] * 3, filter_subject="mail.in.a.INBOX.*", fence=0
    ),
    "a blob": lambda bus: bus.blobs().put(b"x", now=datetime.now(UTC)),
}


class RightsNats(DocumentedNats):
    """`narrow` may write statuses alone, `deaf` hears no answer."""

    def authorization(self) -> str:
        return RIGHTS


@pytest.fixture
async def rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A server, and mailbus that would wait for long."""
    for name in ("asks.REQUEST_TIMEOUT_S", "window.REQUEST_TIMEOUT_S", "errors.REQUEST_TIMEOUT_S"):
        monkeypatch.setattr(f"service.bus.{name}", 60)
    monkeypatch.setattr("service.bus.batch.ANSWER_TIMEOUT_S", 60)
    server = RightsNats(tmp_path / "nats")
    await server.start()
    try:
        async with opened(server.url, "mail", user="mailbus", password="secret"):
            pass
        yield server.url
    finally:
        await server.kill()


@pytest.mark.parametrize("what", ASKED)
async def test_who_may_not_write_there_hears_so_at_once(rights: str, what: str) -> None:
    async with opened(rights, "mail", streams=None, user="narrow", password="secret") as bus, asyncio.timeout(20):
        for _ in range(2):
            with pytest.raises(NotPermitted):
                await ASKED[what](bus)
        assert await bus.publish("mail.status.a.sent", b"")
        assert bus.nc.asks.under_way == 0


async def test_who_may_hear_no_answer_hears_so_at_once(rights: str) -> None:
    async with opened(rights, "mail", streams=None, user="deaf", password="secret") as bus, asyncio.timeout(20):
        for _ in range(2):
            with pytest.raises(NotPermitted):
                await bus.publish("mail.status.a.sent", b"")
            with pytest.raises(NotPermitted):
                await bus.stream_created("MAIL_IN")
            with pytest.raises(NotPermitted):
                await bus.blobs().put(b"x", now=datetime.now(UTC))


async def test_others_who_wait_for_an_answer_wait_on(rights: str) -> None:
    async with opened(rights, "mail", streams=None, user="narrow", password="secret") as bus, asyncio.timeout(20):
        asked = [asyncio.ensure_future(bus.publish("mail.status.a.sent", b"")) for _ in range(10)]
        with pytest.raises(NotPermitted):
            await bus.publish("mail.out.a", b"")
        assert len(set(await asyncio.gather(*asked))) == len(asked)
