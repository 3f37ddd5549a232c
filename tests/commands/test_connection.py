"""The connection that commands have: opened on demand, kept a while, given up in time, and nobody's IDLE."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.contract import email_id
from service.imap import NotConnected, Pool, WritingSession, writing
from service.imap.pool import IDLE_LIMIT_S, REFUSED_PAUSE_S, WAITING_LIMIT, leave
from tests.commands.conftest import Desk, code, desk, mail, options
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.proxy import FaultProxy, Way

Proxy = Callable[[str, int], Awaitable[FaultProxy]]


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at

    def chance(self) -> float:
        return 0.5


def stub_desk(stub: ImapStub, bus: Bus, user: str, **changes: object) -> object:
    return desk(bus, Dovecot(Path()), user, port=stub.port, **changes)


async def test_one_login_serves_many_commands_and_a_mailbox_is_opened_once_for_those_in_a_row(
    bus: Bus, whole_dovecot: Dovecot, prefix: str, fault_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "OPEN_FRESH_S", 60.0)
    proxy = await fault_proxy(whole_dovecot.host, whole_dovecot.imap)
    proxy.recording = True
    async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one:
        await one.append(mail("one"))
        (id,) = await one.ids()
        await one.ask("flags", {"ids": [id], "add": ["$seen"]})
        await one.ids()
        await one.append(mail("two"))
        # News is seen although the mailbox is open already.
        assert len(await one.ids()) == 2
        sent = bytes(proxy.seen[Way.TO_SERVER])
        assert proxy.connections == 1
    # To read, then to write; from then on it is open.
    assert (sent.count(b"EXAMINE"), sent.count(b"SELECT")) == (1, 1)


async def test_a_connection_that_the_server_ended_while_idle_costs_nothing(
    bus: Bus, whole_dovecot: Dovecot, prefix: str, fault_proxy: Proxy
) -> None:
    proxy = await fault_proxy(whole_dovecot.host, whole_dovecot.imap)
    async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one:
        await one.append(mail("one"))
        (id,) = await one.ids()
        proxy.cut()
        assert (await one.ask("flags", {"ids": [id], "add": ["$seen"]}))["updated"] == [id]
        assert proxy.connections == 2


async def test_a_server_that_cannot_be_reached_is_503_at_once(
    bus: Bus, whole_dovecot: Dovecot, prefix: str, fault_proxy: Proxy
) -> None:
    proxy = await fault_proxy(whole_dovecot.host, whole_dovecot.imap)
    await proxy.refuse()
    async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one:
        for _ in range(2):
            answered, problems = await one.refused("mailboxes")
            assert answered == "503"
            assert "cannot connect" in problems[0]["message"]


async def test_a_server_that_does_not_answer_is_504_and_the_next_command_has_a_new_connection(
    bus: Bus, whole_dovecot: Dovecot, prefix: str, fault_proxy: Proxy
) -> None:
    proxy = await fault_proxy(whole_dovecot.host, whole_dovecot.imap)
    async with desk(bus, whole_dovecot, prefix, port=proxy.port, reply_s=0.3) as one:
        await one.append(mail("one"))
        (id,) = await one.ids()
        proxy.watch = lambda way, chunk: b"" if way is Way.TO_SERVER and b"STORE" in chunk else chunk
        answered, problems = await one.refused("flags", {"ids": [id], "add": ["$seen"]})
        assert answered == "504"
        assert "no answer to STORE" in problems[0]["message"]
        assert "it may have been done" in problems[0]["message"]
        proxy.heal()
        assert (await one.ask("flags", {"ids": [id], "add": ["$seen"]}))["updated"] == [id]


@pytest.mark.fault("A01")
@pytest.mark.parametrize(
    ("word", "verb", "body", "expected", "said"),
    [
        (b"AUTHENTICATE", "mailboxes", {}, "503", "no connection within 0.4 s"),
        (b"LIST", "mailboxes", {}, "504", "no answer to LIST"),
        (b"EXAMINE", "search", {"mailbox": "INBOX"}, "504", "no answer to EXAMINE"),
        (b"SEARCH", "search", {"mailbox": "INBOX"}, "504", "no answer to SEARCH"),
        (b"FETCH", "get", {"ids": ["{id}"]}, "504", "no answer to FETCH"),
        (b"SELECT", "flags", {"ids": ["{id}"], "add": ["$seen"]}, "504", "no answer to SELECT"),
        (b"MOVE", "move", {"ids": ["{id}"], "mailbox": "Sent"}, "504", "no answer to MOVE"),
        (b"APPEND", "append", {"mailbox": "INBOX", "request": {"text": "x"}}, "504", "no answer to APPEND"),
    ],
)
async def test_a_connection_that_dies_in_silence_under_a_command_is_said_in_time_and_the_next_command_is_answered(
    bus: Bus,
    whole_dovecot: Dovecot,
    prefix: str,
    fault_proxy: Proxy,
    word: bytes,
    verb: str,
    body: dict[str, object],
    expected: str,
    said: str,
) -> None:
    await whole_dovecot.append(prefix, [mail("one")])
    async with desk(bus, whole_dovecot, prefix) as well:
        (id,) = await well.ids()
    if "ids" in body:
        body = body | {"ids": [id]}

    def watch(way: Way, chunk: bytes) -> bytes:
        if way is Way.TO_SERVER and word in chunk:
            proxy.swallow()
        return chunk

    proxy = await fault_proxy(whole_dovecot.host, whole_dovecot.imap)
    proxy.watch = watch
    async with desk(bus, whole_dovecot, prefix, port=proxy.port, reply_s=0.4, connect_s=0.4) as one:
        answered, problems = await one.refused(verb, body)
        assert answered == expected
        assert said in problems[0]["message"]
        proxy.heal()
        # After a login that failed the next waits for a moment.
        await until_answered(one)
        assert await one.ids() == [id]


async def until_answered(one: Desk) -> None:
    async with asyncio.timeout(10):
        while code(await one.message("mailboxes")):  # noqa: ASYNC110 only asking tells
            await asyncio.sleep(0.05)


async def test_a_connection_that_the_network_forgot_while_idle_costs_a_command_no_more_than_a_moment(
    bus: Bus, whole_dovecot: Dovecot, prefix: str, fault_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.imap.pool.PROBE_LIMIT_S", 0.3)
    proxy = await fault_proxy(whole_dovecot.host, whole_dovecot.imap)
    async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one:
        await one.append(mail("one"))
        (id,) = await one.ids()
        proxy.lose()
        assert (await one.ask("flags", {"ids": [id], "add": ["$seen"]}))["updated"] == [id]
        assert proxy.connections == 2


async def test_a_refused_login_is_503_and_not_tried_again_at_once(
    bus: Bus, whole_dovecot: Dovecot, prefix: str, fault_proxy: Proxy
) -> None:
    proxy = await fault_proxy(whole_dovecot.host, whole_dovecot.imap)
    async with desk(bus, whole_dovecot, prefix, port=proxy.port, password="wrong") as one:
        for _ in range(3):
            answered, problems = await one.refused("mailboxes")
            assert answered == "503"
            assert "check `username` and `password`" in problems[0]["message"]
        assert proxy.connections == 1


async def test_after_a_pause_a_refused_login_is_tried_again(whole_dovecot: Dovecot, prefix: str) -> None:
    clock, tries = Hand(), 0

    async def connect() -> WritingSession:
        nonlocal tries
        tries += 1
        return await WritingSession.open(options(whole_dovecot, prefix, password="wrong"), clock=clock)  # type: ignore[arg-type]

    pool = Pool(connect, clock, where="a")  # type: ignore[arg-type]
    for moved, expected in [(0, 1), (REFUSED_PAUSE_S - 1, 1), (2, 2)]:
        clock.at += moved
        with pytest.raises(NotConnected):
            async with pool.session():
                pass
        assert tries == expected


async def test_an_idle_connection_is_left_after_a_while(whole_dovecot: Dovecot, prefix: str) -> None:
    clock = Hand()
    pool = Pool(lambda: WritingSession.open(options(whole_dovecot, prefix), clock=clock), clock, where="a")  # type: ignore[arg-type]
    async with pool.session() as session:
        await session.open_mailbox("INBOX", writing=False)
    assert pool.sweep() == []
    async with pool.session() as again:
        assert again is session
    clock.at += IDLE_LIMIT_S + 1
    await leave(pool.sweep())
    assert session.protocol.failure is not None
    async with pool.session() as new:
        assert new is not session
    pool.abort()


async def test_an_account_that_ended_keeps_no_connection_and_makes_none(whole_dovecot: Dovecot, prefix: str) -> None:
    clock, opened = SystemClock(), list[WritingSession]()

    async def connect() -> WritingSession:
        opened.append(await WritingSession.open(options(whole_dovecot, prefix), clock=clock))
        return opened[-1]

    async def waiting() -> None:
        async with pool.session():
            pass

    pool = Pool(connect, clock, where="a")
    async with pool.session() as session:
        waits = asyncio.create_task(waiting())
        pool.abort()
        # What is under way has its connection until its end.
        await session.noop()
    assert session.protocol.failure is not None
    with pytest.raises(NotConnected):
        await waits
    assert opened == [session]


@pytest.mark.fault("G11")
async def test_too_many_commands_at_once_are_503_and_the_others_wait_their_turn(
    bus: Bus, prefix: str, imap_stub: ImapStub
) -> None:
    go = asyncio.Event()

    async def slow(connection: Connection, tag: str, _arguments: str) -> bool:
        await go.wait()
        await connection.send(f'* LIST () "/" INBOX\r\n{tag} OK done\r\n')
        return True

    imap_stub.hooks["LIST"] = slow
    async with stub_desk(imap_stub, bus, prefix, reply_s=20.0) as one, asyncio.TaskGroup() as group:
        asked = [group.create_task(one.message("mailboxes")) for _ in range(WAITING_LIMIT + 4)]
        done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 3:
            more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        assert {code(task.result()) for task in done} == {"503"}
        go.set()
        await asyncio.wait(waiting)
        assert {code(task.result()) for task in waiting} == {""}
        assert len(imap_stub.connections) == 1


async def test_a_literal_waits_for_the_server_where_it_wants_that(bus: Bus, prefix: str, imap_stub: ImapStub) -> None:
    imap_stub.capabilities = "IMAP4rev1 UIDPLUS"
    received: list[bytes] = []

    async def take(connection: Connection, tag: str, arguments: str) -> bool:
        assert arguments.endswith("}")
        size = int(arguments.rpartition("{")[2].rstrip("}"))
        await connection.send("+ go on\r\n")
        received.append(await connection.reader.readexactly(size + 2))
        await connection.send(f"{tag} OK [APPENDUID 7 12] done\r\n")
        return True

    imap_stub.hooks["APPEND"] = take
    async with stub_desk(imap_stub, bus, prefix) as one:
        assert (await one.ask("append", {"mailbox": "INBOX", "request": {"subject": "x", "text": "y\n"}}))["id"]
    assert received[0].endswith(b"\r\n\r\ny\r\n\r\n")
    assert b"Subject: x\r\n" in received[0]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("NO [OVERQUOTA] full", "503"),
        ("NO [TRYCREATE] no such mailbox", "404"),
        ("NO [NOPERM] not you", "400"),
        ("BAD what", "400"),
    ],
)
async def test_a_literal_that_is_refused_leaves_the_connection_in_step(
    bus: Bus, prefix: str, imap_stub: ImapStub, said: str, expected: str
) -> None:
    imap_stub.capabilities = "IMAP4rev1 UIDPLUS"

    async def refuse(connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(f"{tag} {said}\r\n")
        return True

    imap_stub.hooks["APPEND"] = refuse
    async with stub_desk(imap_stub, bus, prefix) as one:
        answered, _ = await one.refused("append", {"mailbox": "INBOX", "request": {"text": "y"}})
        assert answered == expected
        assert (await one.ask("mailboxes"))["list"][0]["role"] == "inbox"
        assert len(imap_stub.connections) == 1


async def test_a_keyword_that_the_server_would_forget_is_refused(bus: Bus, prefix: str, imap_stub: ImapStub) -> None:
    imap_stub.messages = {1: mail("one")}

    async def select(connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(
            "* 1 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n* OK [PERMANENTFLAGS (\\Seen \\Flagged old)] p\r\n"
            f"{tag} OK [READ-WRITE] done\r\n"
        )
        return True

    async def search(connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(f"* ESEARCH (TAG {tag}) UID ALL 1\r\n{tag} OK done\r\n")
        return True

    imap_stub.hooks |= {"SELECT": select, "UID SEARCH": search}
    async with stub_desk(imap_stub, bus, prefix) as one:
        (id,) = await one.ids()
        answered, problems = await one.refused("flags", {"ids": [id], "add": ["$seen", "new", "$draft"]})
        assert (answered, problems[0]["field"]) == ("400", "add")
        assert "new, $draft" in problems[0]["message"]
        assert (await one.ask("flags", {"ids": [id], "add": ["$seen", "old"]}))["updated"] == [id]


@pytest.mark.parametrize(
    "lie",
    [
        "* ESEARCH UID ALL 1:4294967295\r\n",
        "* SEARCH " + " ".join(str(n) for n in range(1, 60_000)) + "\r\n",
        "* ESEARCH UID ALL nonsense\r\n",
        "* SEARCH 99999999999999999999 0\r\n",
        "* ESEARCH UID ALL 0,1\r\n",
    ],
)
async def test_a_search_that_lies_costs_neither_memory_nor_the_service(
    bus: Bus, prefix: str, imap_stub: ImapStub, lie: str
) -> None:
    async def search(connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(f"{lie}{tag} OK done\r\n")
        return True

    imap_stub.hooks["UID SEARCH"] = search
    async with stub_desk(imap_stub, bus, prefix) as one:
        for body in ({}, {"sort": [{"property": "size"}]}, {"filter": {"after": "2026-01-01T00:00:00Z"}}):
            answer = await one.message("search", {"mailbox": "INBOX"} | body)
            assert code(answer) in {"", "400", "504", "503"}, answer.data
            assert len(answer.data) < 100_000
        body = {"ids": [email_id("INBOX", 7, 1)], "add": ["$seen"]}
        assert code(await one.message("flags", body)) in {"", "504", "503"}


async def test_totals_are_the_same_with_list_status_and_without(either: Desk) -> None:
    await either.append(mail("one"), mail("two"))
    (one, _two) = await either.ids()
    await either.ask("flags", {"ids": [one], "add": ["$seen"]})
    found = {row["role"]: row for row in (await either.ask("mailboxes"))["list"]}
    assert (found["inbox"]["totalEmails"], found["inbox"]["unreadEmails"]) == (2, 1)
    assert found["trash"]["totalEmails"] == 0
    assert found["trash"]["parentId"] is None
    whole = (await either.ask("mailboxes"))["list"]
    assert (await either.ask("mailboxes", {"position": 1}))["list"] == whole[1:]
    assert code(await either.message("mailboxes", b"")) == ""
    assert json.loads((await either.message("mailboxes", {"x": 1})).data)["problems"][0]["field"] == "x"


@pytest.mark.fault("A13")
async def test_a_server_that_gives_far_more_than_it_says_is_given_up(
    bus: Bus, prefix: str, imap_stub: ImapStub
) -> None:
    imap_stub.messages = dict.fromkeys(range(1, 9), b"Subject: x\r\n\r\n" + b"x" * 900_000)

    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        if "BODY" in arguments:
            return False
        for uid in range(1, 9):
            await connection.send(f"* {uid} FETCH (UID {uid} FLAGS () INTERNALDATE NIL RFC822.SIZE 1)\r\n")
        await connection.send(f"{tag} OK done\r\n")
        return True

    async def search(connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(f"* ESEARCH (TAG {tag}) UID ALL 1:8\r\n{tag} OK done\r\n")
        return True

    imap_stub.hooks |= {"UID FETCH": fetch, "UID SEARCH": search}
    async with stub_desk(imap_stub, bus, prefix) as one:
        ids = await one.ids()
        assert len(ids) == 8
        for verb, asked in [
            ("get", {"ids": ids, "properties": ["preview"]}),
            ("get", {"ids": ids, "properties": ["subject"]}),
            ("search", {"mailbox": "INBOX", "sort": [{"property": "subject"}]}),
        ]:
            answered, problems = await one.refused(verb, asked)
            assert answered == "504"
            assert "far more of the messages than their sizes" in problems[0]["message"]
