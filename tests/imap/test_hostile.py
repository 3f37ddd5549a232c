"""A server that means harm, or is broken beyond hope: a clear error, bounded memory, and nobody else disturbed.

Three tables: what is said at one place instead of an answer, what is said beside every answer, what is said of numbers.
STARTTLS, PREAUTH and certificates are in test_tls.py; what ingest makes of it is in ingest/test_imap_faults.py.
"""

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from service.clock import SystemClock
from service.errors import PeerError, Permanent, Transient
from service.imap import Changes, Identity, Session, WritingSession
from tests.imap.test_session import MAIL, bodies, options
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.scripted import serving

# What all of a connection may take before it is given up: its longest line is 8 MB, and it is joined once.
MEMORY_LIMIT_BYTES = 64 * 1024 * 1024
CAPABILITIES = "IMAP4rev1 IDLE LITERAL+ ESEARCH ID ENABLE UTF8=ACCEPT CONDSTORE QRESYNC OBJECTID"
LIFE = ["CAPABILITY", "LOGIN", "ID", "ENABLE", "LIST", "EXAMINE", "UID FETCH", "UID SEARCH", "NOOP", "IDLE"]
GREETING = "greeting"


async def live(port: int) -> None:
    """All that mailbus does with a mailbox, once."""
    session = await Session.open(options(port, reply_s=2.0, connect_s=4.0), clock=SystemClock())
    try:
        changes = Changes(session)
        await session.list_mailboxes()
        await changes.open("INBOX")
        await session.survey(1, None)
        await bodies(session, [1])
        await session.search_lowest("ALL")
        await changes.flags(1, 2**32 - 1, 1)
        await changes.present(1, 100)
        await session.noop()
        await session.idle(0.01)
    finally:
        session.abort()


@dataclass
class Hostile(ImapStub):
    """Behaves until the command `at`, and then says `says` instead of an answer."""

    at: str = ""
    says: Callable[[Connection, str], Awaitable[None]] | None = None
    capabilities: str = CAPABILITIES
    highestmodseq: int = 5
    messages: dict[int, bytes] = field(default_factory=lambda: {1: MAIL, 2: MAIL})

    def __post_init__(self) -> None:
        """The hook, or the greeting."""
        if self.at == GREETING:
            self.greeting = ""
        elif self.at:
            self.hooks[self.at] = self._hook

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Instead of a greeting, where that is the place."""
        if self.at == GREETING and self.says is not None:
            with suppress(ConnectionError):
                await self.says(Connection(reader, writer), "*")
        await super().serve(reader, writer)

    async def _hook(self, connection: Connection, tag: str, arguments: str) -> bool:
        assert self.says is not None
        await self.says(connection, tag)
        return True


# -- instead of an answer -------------------------------------------------------------------------------------


def sends(wire: str, *, cut: bool = False, times: int = 1) -> Callable[[Connection, str], Awaitable[None]]:
    """This, so many times, and then nothing, or the end."""

    async def say(connection: Connection, tag: str) -> None:
        for _ in range(times):
            await connection.send(wire.replace("TAG", tag))
        if cut:
            connection.cut()

    return say


MEGABYTE = "x" * 1024 * 1024
INSTEAD = {
    "BYE and the end": sends("* BYE go away\r\n", cut=True),
    "BYE and silence": sends("* BYE go away\r\n"),
    "BYE within a literal": sends("* 1 FETCH (UID 1 BODY[] {1000}\r\n* BYE go away\r\n", cut=True),
    "the end within a line": sends("* 1 FETCH (UID 1", cut=True),
    "the end without a word": sends("", cut=True),
    "an endless line": sends(MEGABYTE, times=200),
    "an endless line of brackets": sends("* 1 FETCH (" + "(" * 1024 * 1024, times=200),
    "a line of atoms": sends("* 1 FETCH (FLAGS (" + "a " * 120_000 + "))\r\nTAG OK done\r\n"),
    "an endless quoted string": sends('* LIST () "/" "' + MEGABYTE, times=200),
    "a literal of 4 GB": sends("* 1 FETCH (UID 1 BODY[] {4294967296}\r\n" + MEGABYTE, times=20),
    "a literal of 10^19": sends("* 1 FETCH (UID 1 BODY[] {9999999999999999999}\r\n"),
    "a literal of less than nothing": sends("* 1 FETCH (UID 1 BODY[] {-5}\r\n"),
    "endless small literals": sends("* LIST () NIL " + "{1}\r\na" * 100, times=1000),
    "nested without end": sends("* 1 FETCH (UID 1 BODYSTRUCTURE " + "(" * 10_000 + ")" * 10_000 + ")\r\n"),
    "an answer to another command": sends("zz99 OK done\r\n"),
    "an answer that is none": sends("TAG MAYBE\r\n"),
    "another protocol": sends("HTTP/1.1 400 Bad Request\r\n\r\n"),
    "bytes without sense": sends("\x00\x01\x02\r\n"),
    "brackets too many": sends("* 1 FETCH (UID 1))\r\n"),
    "a set that is none": sends("* VANISHED 1:x\r\n"),
    "a wish for more": sends("+ go on\r\n" * 3),
}


@pytest.mark.fault("A02")
@pytest.mark.fault("A12")
@pytest.mark.fault("A13")
@pytest.mark.parametrize("what", INSTEAD)
async def test_whatever_is_said_instead_of_an_answer_is_a_clear_error_in_bounded_memory(what: str) -> None:
    tracemalloc.start()
    try:
        for at in (GREETING, *LIFE):
            async with serving(Hostile(at=at, says=INSTEAD[what])) as stub:
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                with pytest.raises((Transient, Permanent)) as ended:
                    await asyncio.wait_for(live(stub.port), 20)
                assert tracemalloc.get_traced_memory()[1] - before < MEMORY_LIMIT_BYTES, at
            assert ended.value.what, at
            assert "127.0.0.1" in ended.value.where, at
            if what in {"BYE and the end", "BYE and silence"}:
                # Whoever waits is woken by the word, and not by what the time says.
                assert "go away" in ended.value.what, at
            if what.startswith("a literal of"):
                # By its size, before any of it.
                assert "a literal of" in ended.value.what, at
    finally:
        tracemalloc.stop()


# -- instead of an end ----------------------------------------------------------------------------------------

LONG = "x" * 100_000
ODD = ",".join(map(str, range(1, 60_000, 2)))
ENDLESS = {
    "names": ("LIST", f'* LIST () "/" {LONG}\r\n'),
    "names as literals": ("LIST", f'* LIST () "/" {{100000}}\r\n{LONG}\r\n'),
    "numbers": ("UID SEARCH", "* SEARCH " + "1234567 " * 12_000 + "\r\n"),
    "labels": ("UID FETCH", f"* 1 FETCH (UID 1 RFC822.SIZE 1 X-GM-LABELS ({{100000}}\r\n{LONG}))\r\n"),
    "sets": ("UID SEARCH", f"* ESEARCH UID ALL {ODD}\r\n"),
    "sets of what is gone": ("UID FETCH", f"* VANISHED (EARLIER) {ODD}\r\n"),
    "words": ("NOOP", f"* OK {LONG}\r\n"),
    "wishes": ("AUTHENTICATE", f"+ {LONG}\r\n"),
}


@pytest.mark.fault("A13")
@pytest.mark.parametrize("what", ENDLESS)
async def test_valid_responses_without_an_end_are_given_up_in_bounded_memory(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.imap.protocol.ANSWER_LIMIT_BYTES", 4 * 1024 * 1024)
    at, wire = ENDLESS[what]
    capabilities = f"{CAPABILITIES} AUTH=PLAIN" if at == "AUTHENTICATE" else CAPABILITIES
    tracemalloc.start()
    try:
        async with serving(Hostile(at=at, says=sends(wire, times=2000), capabilities=capabilities)) as stub:
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(PeerError, match="bytes in answer to one command"):
                await asyncio.wait_for(live(stub.port), 20)
            assert tracemalloc.get_traced_memory()[1] - before < MEMORY_LIMIT_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.fault("A13")
async def test_far_more_of_messages_than_their_sizes_is_given_up_and_a_little_more_is_not() -> None:
    async with serving(ImapStub(messages=dict.fromkeys(range(1, 11), b"x" * 900_000))) as stub:
        session = await Session.open(options(stub.port), clock=SystemClock())
        await session.examine("INBOX")
        found: list[int] = []
        await session.fetch_section("BODY.PEEK[]", [1, 2, 3, 4], lambda uid, _: found.append(uid), expected_bytes=4)
        assert found == [1, 2, 3, 4]
        found.clear()
        with pytest.raises(PeerError, match="than their sizes"):
            await session.fetch_section(
                "BODY.PEEK[]", range(1, 11), lambda uid, _: found.append(uid), expected_bytes=10
            )
        assert found == [1, 2, 3, 4]


async def enables(connection: Connection, tag: str, arguments: str) -> bool:
    """All that is asked for."""
    await connection.send(f"* ENABLED {arguments}\r\n{tag} OK done\r\n")
    return True


@pytest.mark.fault("A13")
async def test_a_set_that_names_all_numbers_again_and_again_is_these_numbers_once() -> None:
    every = ",".join(["1:4294967295"] * 1000)

    async def says(connection: Connection, tag: str, arguments: str) -> bool:
        kind = "VANISHED (EARLIER)" if "VANISHED" in arguments else "ESEARCH UID ALL"
        await connection.send(f"* {kind} {every}\r\n" * 3 + f"{tag} OK done\r\n")
        return True

    async with serving(Hostile()) as stub:
        stub.hooks = {"ENABLE": enables, "UID FETCH": says, "UID SEARCH": says}
        session = await Session.open(options(stub.port), clock=SystemClock())
        changes = Changes(session)
        await changes.open("INBOX")
        assert (await changes.flags(3, 9, 1)).vanished == [range(3, 10)]
        assert await changes.present(3, 9) == [range(3, 10)]
        session.abort()


@pytest.mark.fault("A13")
async def test_who_says_that_all_mail_has_one_message_id_is_asked_for_little_of_it() -> None:
    asked: list[str] = []
    many = ",".join(f"{n}:{n + 499}" for n in range(1, 5_000_000, 501))

    async def search(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"* ESEARCH UID ALL {many}\r\n{tag} OK done\r\n")
        return True

    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        asked.append(arguments.split()[0])
        await connection.send(f"{tag} OK done\r\n")
        return True

    async with serving(Hostile()) as stub:
        stub.hooks = {"UID SEARCH": search, "UID FETCH": fetch}
        session = await WritingSession.open(options(stub.port), clock=SystemClock())
        await session.open_mailbox("INBOX", writing=False)
        tracemalloc.start()
        try:
            assert await session.locate({Identity(b"<a@b>", 7)}) == {}
            assert tracemalloc.get_traced_memory()[1] < MEMORY_LIMIT_BYTES
        finally:
            tracemalloc.stop()
        session.abort()
    assert asked == ["4999981:5000480"]


# -- beside every answer --------------------------------------------------------------------------------------

UNASKED = [
    "* OK still here",
    "* OK [ALERT] the disk is full",
    "* OK [UNSEEN 1] one",
    "* OK [NONSENSE \xff",
    "* NO trouble ahead",
    "* BAD what was that",
    "* OK",
    "* FLAGS (\\Seen NIL ())",
    "* 2 RECENT",
    "* 2 EXISTS",
    '* LSUB () "/" "x"',
    '* LIST () "/" "x" (CHILDINFO ("SUBSCRIBED"))',
    "* LIST nonsense",
    '* XLIST (\\Inbox) "/" "Posteingang"',
    '* STATUS "x" (MESSAGES 9 UIDNEXT NIL)',
    "* STATUS",
    "* THREAD (1)(2 3)",
    "* VANISHED (EARLIER) 1000:2000",
    "* 9 FETCH (FLAGS (\\Deleted))",
    '* 9 FETCH (UID 99 FLAGS NIL INTERNALDATE "never" RFC822.SIZE NIL BODY[] NIL)',
    "* 9 FETCH NIL",
    "* 9 FETCH",
    "* 9 FETCH ()",
    "* 9 FETCH (UID)",
    "* 0 FETCH (UID 0 FLAGS ())",
    "* 9 FETCH (UID 4294967296 FLAGS () INTERNALDATE NIL RFC822.SIZE 1)",
    "* 9 FETCH (UID 99999999999999999999999 FLAGS ())",
    "* ENABLED",
    "* NAMESPACE NIL NIL NIL",
    '* ID ("name" NIL)',
    '* QUOTAROOT "INBOX" ""',
    '* QUOTA "" (STORAGE 1 2)',
    "* ACL INBOX me lrs",
    '* METADATA "" (/private/comment {2}\r\nab)',
    "* LANGUAGE (DE)",
    "* 7 NONSENSE",
    "* NONSENSE {3}\r\nabc ((()))",
    "* ",
    "",
]


@pytest.mark.fault("A10")
async def test_what_nobody_asked_for_changes_no_answer() -> None:
    async with serving(Hostile(capabilities="IMAP4rev1 IDLE ESEARCH CONDSTORE")) as stub:

        async def noise(connection: Connection, tag: str, arguments: str) -> bool:
            for line in UNASKED:
                await connection.send(line.encode("latin-1") + b"\r\n")
            return False

        for name in (*LIFE, "FETCH"):
            stub.hooks[name] = noise
        session = await Session.open(options(stub.port), clock=SystemClock())
        changes = Changes(session)
        selected = await changes.open("INBOX")
        assert (selected.uidvalidity, selected.uidnext, selected.exists, selected.highestmodseq) == (7, 3, 2, 5)
        assert [row.uid for row in await session.survey(1, None)] == [1, 2]
        assert await bodies(session, [1, 2]) == {1: MAIL, 2: MAIL}
        assert [row.uid for row in (await changes.flags(1, 50, 0)).rows] == [1, 2]
        assert await changes.present(1, 100) == [range(1, 3)]
        await session.noop()
        assert session.exists == 2
        session.abort()


# -- lies about numbers ---------------------------------------------------------------------------------------

LIES = [
    "* 0 EXISTS",
    "* 9999999999 EXISTS",
    "* 0 EXPUNGE",
    "* 9999999999 EXPUNGE",
    "* VANISHED 1:4294967295",
    "* VANISHED 0,9999999999",
    "* OK [UIDNEXT 0] none",
    "* OK [UIDNEXT \u00b2] two",
    "* OK [UIDNEXT " + "9" * 5000 + "] many",
    "* OK [UIDVALIDITY 4294967295] most",
    "* OK [HIGHESTMODSEQ \u00b2] two",
    "* OK [HIGHESTMODSEQ " + "9" * 5000 + "] many",
    "* SEARCH 0 4294967296 9999999999",
    "* ESEARCH UID MIN 9999999999 ALL 1:9999999999",
    "* 1 FETCH (UID 1 FLAGS () MODSEQ (99999999999999999999))",
    "* 1 FETCH (UID 1 FLAGS () INTERNALDATE NIL RFC822.SIZE 99999999999999999999)",
    "* 1 FETCH (UID 1 FLAGS () INTERNALDATE NIL RFC822.SIZE -1)",
]


@pytest.mark.fault("A07")
@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie[:40])
async def test_a_lie_about_numbers_is_a_number_or_none(lie: str) -> None:
    async with serving(Hostile(capabilities="IMAP4rev1 IDLE ESEARCH CONDSTORE")) as stub:

        async def lying(connection: Connection, tag: str, arguments: str) -> bool:
            await connection.send(f"{lie}\r\n")
            return False

        for name in LIFE[4:]:
            stub.hooks[name] = lying
        session = await Session.open(options(stub.port), clock=SystemClock())
        try:
            changes = Changes(session)
            selected = await changes.open("INBOX")
            assert 0 < selected.uidvalidity < 2**32
            assert 0 <= selected.uidnext < 2**32
            assert 0 <= selected.highestmodseq < 2**63
            assert {1, 2} >= {row.uid for row in await session.survey(1, None)} >= {2}
            assert 0 <= (await session.search_lowest("ALL") or 0) < 2**32
            rows = (await changes.flags(1, 2**32 - 1, 1)).rows
            assert all(0 < row.uid < 2**32 and 0 <= row.modseq < 2**63 for row in rows)
            await session.noop()
            assert session.exists >= 0
        finally:
            session.abort()


# -- the others -----------------------------------------------------------------------------------------------


@pytest.mark.fault("A13")
async def test_no_other_account_is_disturbed() -> None:
    async with serving(ImapStub(messages={1: MAIL})) as good, serving(Hostile(at="NOOP")) as bad:
        bad.hooks["NOOP"] = Hostile(at="NOOP", says=sends(MEGABYTE, times=200)).hooks["NOOP"]
        one = await Session.open(options(good.port), clock=SystemClock())
        await one.examine("INBOX")
        attacks = 0
        async with asyncio.TaskGroup() as group:
            heard = group.create_task(one.idle(60))
            while not heard.done():
                session = await Session.open(options(bad.port), clock=SystemClock())
                with pytest.raises(Transient, match="without an end"):
                    await session.noop()
                attacks += 1
                if attacks == 2:
                    await good.deliver(2, MAIL)
        assert heard.result() is not None
        one.abort()
