"""UIDs that lie far apart, as where a server makes them of times: few commands for them, and none left out."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from service.bus import Bus
from tests.ingest.harness import Box, following
from tests.ingest.view import act, mail, quick, seen, watching
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader
from tests.servers.proxy import FaultProxy, Way

TIME = 1_700_000_000
LIMITS = ["imap.session", "ingest.plan", "ingest.from_imap"]


@pytest.fixture
def of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A survey holds ten messages at the most."""
    for module in LIMITS:
        monkeypatch.setattr(f"service.{module}.SURVEY_LIMIT_ROWS", 10)
    monkeypatch.setattr("service.ingest.windows.SURVEY_LIMIT_UIDS", 4)


def times(count: int) -> Iterator[int]:
    """One when the mailbox was new, then one an hour."""
    yield 3
    yield from range(TIME, TIME + 3600 * (count - 1), 3600)


def asked(stub: ImapStub, *names: str) -> list[str]:
    return [command for command in stub.commands if any(name in command for name in names)]


async def test_a_mailbox_whose_uids_are_times_is_read_and_compared_in_few_commands(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    imap_stub.messages = {uid: mail(number) for number, uid in enumerate(times(60), 1)}
    uids = sorted(imap_stub.messages)
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(60)
    assert len(asked(imap_stub, "SIZE", "SEARCH")) < 25
    imap_stub.commands.clear()
    imap_stub.flags = {uids[0]: "\\Flagged", uids[-1]: "\\Flagged"}
    gone = uids[30]
    del imap_stub.messages[gone]
    box = Box(imap_stub.port)
    async with following(bus, box):
        await watching(box)
    left = {uid: {"$seen"} for uid in uids if uid != gone}
    await seen(reader, left | {uids[0]: {"$flagged"}, uids[-1]: {"$flagged"}})
    assert len(asked(imap_stub, "FETCH", "SEARCH")) < 10


@pytest.mark.usefixtures("of_ten")
@pytest.mark.parametrize("lie", ["", "nothing is found", "too many", "no answer", "refused"])
async def test_of_more_than_a_survey_holds_none_is_left_out_whatever_the_search_says(
    imap_stub: ImapStub, bus: Bus, reader: BusReader, lie: str
) -> None:
    said = {
        "nothing is found": '* ESEARCH (TAG "{tag}") UID\r\n* SEARCH\r\n{tag} OK done\r\n',
        "too many": '* ESEARCH (TAG "{tag}") UID ALL 1:4000000000\r\n{tag} OK done\r\n',
        "no answer": "{tag} OK done\r\n",
        "refused": "{tag} BAD SEARCH?\r\n",
    }

    async def answer(connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(said[lie].format(tag=tag))
        return True

    if lie:
        imap_stub.hooks["UID SEARCH"] = answer
    # Some together, some apart; far where the server says how far.
    far = 1 if lie else 10**6
    uids = [*range(100, 130), *range(130, 1700, 100), *range(1700 * far, 1700 * far + 60)]
    imap_stub.messages = {uid: mail(number) for number, uid in enumerate(uids, 1)}
    count = len(imap_stub.messages)
    async with following(bus, Box(imap_stub.port)):
        await reader.wait_received(count)
    assert await seen(reader, {uid: {"$seen"} for uid in imap_stub.messages})
    if not lie:
        assert len(asked(imap_stub, "SIZE", "SEARCH")) < 120


@pytest.mark.usefixtures("of_ten")
@pytest.mark.parametrize("habit", ["snapshot", "old"])
async def test_on_a_real_server_they_are_told_and_compared_as_others_are(
    dovecot_that: Callable[[str], Dovecot], bus: Bus, reader: BusReader, prefix: str, habit: str
) -> None:
    server = dovecot_that(habit)
    uids: list[int] = []
    for first in (0, TIME, TIME + 10**6, TIME + 10**7, TIME + 10**8):
        if first:
            await asyncio.to_thread(numbered_from, server, prefix, first)
        await server.append(prefix, [mail(len(uids) + number) for number in range(1, 6)])
        uids += range(first or 1, (first or 1) + 5)
    proxy = FaultProxy(server.host, server.imap)
    await proxy.start()
    proxy.recording = True

    def box() -> Box:
        return replace(quick(server, prefix), port=proxy.port)

    try:
        async with following(bus, box()):
            await reader.wait_received(25)
        await seen(reader, {uid: set() for uid in uids})
        await act(server, prefix, ("STORE", f"{uids[0]},{uids[24]}", "+FLAGS", r"(\Flagged)"))
        await act(server, prefix, ("STORE", f"{uids[3]},{uids[12]}", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",))
        left = {uid: set[str]() for uid in uids if uid not in {uids[3], uids[12]}}
        async with following(bus, box()):
            await seen(reader, left | {uids[0]: {"$flagged"}, uids[24]: {"$flagged"}})
    finally:
        await proxy.stop()
    sent = bytes(proxy.seen[Way.TO_SERVER])
    assert sent.count(b"UID SEARCH") + sent.count(b"SIZE") < 80


def numbered_from(server: Dovecot, user: str, uid: int) -> None:
    """The next message of INBOX gets this UID."""
    command = ["doveadm", "-c", str(server.root / "dovecot.conf"), "mailbox", "update", "-u", user]
    subprocess.run([*command, "--min-next-uid", str(uid), "INBOX"], check=True, timeout=30)
