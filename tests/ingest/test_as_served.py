"""What a server gives is kept byte by byte, and what it gives without an end is given up and said."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from service.bus import Bus
from service.contract import AccountState
from service.parsing import Raw
from tests.ingest.harness import Box, following
from tests.mime.test_dkim import MAIL, signed, verifies
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader, until

MIXED = b"Subject: x\r\n\r\nbare\nlone\rboth\r\n\xff\xfe\x80 trailing  \r\n\t\r\n\r\n\r\nno end"
# Without a charset it is not understood whole.
UNCLEAR = b"Subject: x\r\nContent-Type: text/plain; charset=x-none\r\n\r\n\xff\nbare  \r\n"


async def raw_of(reader: BusReader, count: int) -> list[bytes | None]:
    """What is stored of each message as a whole."""
    store = await reader.nc.jetstream().object_store(f"{reader.prefix}-blobs")
    names = [event.body.get("blobId") for event in await reader.wait_received(count)]
    return [(await store.get(name)).data if name else None for name in names]


@pytest.mark.fault("C10")
async def test_the_raw_bytes_of_a_mail_are_those_that_the_server_gave(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    served = [signed(key, MAIL), MIXED, b""]
    imap_stub.messages = dict(enumerate(served, 1))
    async with following(bus, Box(imap_stub.port, raw=Raw.ALWAYS)):
        kept = await raw_of(reader, 3)
    assert kept == served
    assert kept[0] is not None
    assert verifies(key, kept[0])


@pytest.mark.fault("C01", "C05")
async def test_a_mail_that_is_not_understood_whole_keeps_its_raw_bytes_and_others_do_not(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages = {1: UNCLEAR, 2: b"Subject: x\r\n\r\nclear\r\n"}
    async with following(bus, Box(imap_stub.port, raw=Raw.PROBLEM)):
        assert await raw_of(reader, 2) == [UNCLEAR, None]


@pytest.mark.fault("A08", "A11")
async def test_a_mail_that_goes_before_it_is_read_is_neither_announced_nor_said_to_be_unavailable(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    async def fetch(_connection: Connection, _tag: str, arguments: str) -> bool:
        if "BODY" in arguments:
            imap_stub.messages.pop(2, None)
        return False

    imap_stub.messages = {uid: b"Subject: %d\r\n\r\nx\r\n" % uid for uid in (1, 2, 3)}
    imap_stub.hooks["UID FETCH"] = fetch
    async with following(bus, Box(imap_stub.port)) as box:
        await until(lambda: box.status.state == "watching")
        assert [event.body["subject"] for event in await reader.received()] == ["1", "3"]
    assert box.status.last_uid == 3


@pytest.mark.fault("A13")
@pytest.mark.parametrize(
    ("wire", "said"),
    [
        ("* 1 FETCH (FLAGS (" + "a " * 200_000, "without an end"),
        ("* 1 FETCH (BODYSTRUCTURE " + "(" * 10_000 + "\r\n", "nested"),
        ("* LIST () NIL " + "{1}\r\na" * 3_000, "literals"),
    ],
)
async def test_a_server_without_limits_is_given_up_said_and_read_once_it_has_some(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, wire: str, said: str
) -> None:
    async def endless(connection: Connection, _tag: str, _arguments: str) -> bool:
        await connection.send(wire)
        return True

    imap_stub.messages = {1: b"Subject: x\r\n\r\nclear\r\n"}
    imap_stub.hooks["UID FETCH"] = endless
    box = Box(imap_stub.port)
    async with following(bus, box):
        await until(lambda: len(box.states) > 2)
        del imap_stub.hooks["UID FETCH"]
        await reader.wait_received(1)
    state, error = box.states[0]
    assert state is AccountState.DISCONNECTED
    assert said in str(error)
