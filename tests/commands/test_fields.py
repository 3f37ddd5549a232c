"""`get` of header fields: asked for by name, all of them, however they are called."""

import pytest

from service.bus import Bus
from service.commands.get import FIELDS_LIMIT
from tests.commands.conftest import desk
from tests.servers.dovecot import Dovecot
from tests.servers.proxy import FaultProxy, Way

LETTER = b"Subject: bill\r\n\r\nSee below.\r\n"


@pytest.mark.parametrize(
    ("names", "length", "section"),
    [
        (29, 36, "BODY.PEEK[HEADER.FIELDS (X00"),  # over 1,000 characters
        (FIELDS_LIMIT, 110, "BODY.PEEK[HEADER.FIELDS (X00"),
        (FIELDS_LIMIT, 200, "BODY.PEEK[HEADER]<0.524288>"),  # over what a line of IMAP may have
    ],
)
async def test_header_fields_are_read_however_long_their_names_are_together(
    bus: Bus, whole_dovecot: Dovecot, prefix: str, names: int, length: int, section: str
) -> None:
    fields = [f"X{number:02}".ljust(length, "-") for number in range(names)]
    there = {fields[0], fields[-1]}
    proxy = FaultProxy(whole_dovecot.host, whole_dovecot.imap)
    await proxy.start()
    proxy.recording = True
    try:
        async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one:
            await one.append(b"".join(f"{name}: of {name[:3]}\r\n".encode() for name in sorted(there)) + LETTER)
            (id,) = await one.ids()
            answer = await one.ask("get", {"ids": [id], "properties": [f"header:{name}" for name in fields]})
            sent = bytes(proxy.seen[Way.TO_SERVER])
    finally:
        await proxy.stop()
    (email,) = answer["list"]
    values = {name: f" of {name[:3]}" if name in there else None for name in fields}
    assert email == {"id": id} | {f"header:{name}": value for name, value in values.items()}
    assert section.encode() in sent
