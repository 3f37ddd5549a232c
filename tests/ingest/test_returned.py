"""Mail about a mail that was sent is told before its event stands, so that none is forgotten over a crash."""

import json

import pytest

from service.bus import Bus
from service.errors import Transient
from tests.ingest.harness import Box, following
from tests.meaning.mails import dsn
from tests.meaning.test_dsn import FAILED
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import BusReader

BOUNCE = dsn(FAILED).encode().replace(b"\n", b"\r\n")
PLAIN = b"From: a@example.org\r\nSubject: hello\r\n\r\nhi\r\n"


@pytest.mark.parametrize(
    ("action", "kind"),
    [("failed", "bounce"), ("delivered", "delivered"), ("relayed", "delivered"), ("delayed", "delay")],
)
async def test_only_what_came_back_is_told_and_before_its_event_stands(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, action: str, kind: str
) -> None:
    imap_stub.messages = {1: PLAIN, 2: BOUNCE.replace(b"Action: failed", f"Action: {action}".encode())}
    told: list[tuple[str, int]] = []

    async def returned(payload: bytes) -> None:
        said = json.loads(payload)["mailbus"]
        told.append((said["original"]["messageId"], len([e for e in await reader.events() if e.kind == "received"])))

    async with following(bus, Box(imap_stub.port, returned=returned)):
        plain, report = await reader.wait_received(2)
    assert told == [("sent@example.org", 0)]
    assert (plain.headers["Mail-Kind"], report.headers["Mail-Kind"]) == ("message", kind)


async def test_where_it_cannot_be_told_the_mail_is_announced_later(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages = {1: BOUNCE}
    tries = 0

    async def returned(_: bytes) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Transient("no answer", where="mail-sends")

    async with following(bus, Box(imap_stub.port, returned=returned)):
        await reader.wait_received(1)
    assert tries == 3
