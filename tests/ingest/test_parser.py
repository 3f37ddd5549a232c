"""Where pages become events: here, or in a child that may be killed at any moment."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cache

import pytest

from service.clock import SystemClock
from service.ingest import Parser
from service.meaning import takes_long
from service.parsing import Made, Page, Raw, Read, make
from tests.servers.mailbus import until

NOW = datetime(2026, 11, 24, tzinfo=UTC)
PAGE = Page("/mail/a/INBOX", "INBOX", "c0ffee", 7, 256 * 1024, 1024 * 1024, Raw.PROBLEM, NOW)
MANY = [Read(uid, 20_000, {}, NOW, b"Subject: %d\r\n\r\n" % uid + b"word " * 4_000, True) for uid in range(1, 101)]


@cache
def here() -> list[Made]:
    """What is made of them in this process."""
    return [make(PAGE, message) for message in MANY]


async def wait_child(parser: Parser, *, other_than: int | None = None) -> int:
    """The process id of a child that has started."""
    await until(lambda: parser._child is not None and parser._child.process.pid != other_than)
    assert parser._child is not None
    return parser._child.process.pid


@asynccontextmanager
async def running(parser: Parser) -> AsyncIterator[None]:
    task = asyncio.create_task(parser.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def parser(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Parser]:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    one = Parser(SystemClock())
    async with running(one):
        yield one


async def test_the_child_makes_what_would_be_made_here(parser: Parser) -> None:
    await wait_child(parser)
    assert await parser.make(PAGE, MANY) == here()


async def test_pages_are_answered_each_with_its_own(parser: Parser) -> None:
    await wait_child(parser)
    halves = [MANY[:50], MANY[50:], MANY[:40], MANY]
    made = await asyncio.wait_for(asyncio.gather(*(parser.make(PAGE, half) for half in halves)), 30)
    assert [[one.uid for one in page] for page in made] == [[one.uid for one in half] for half in halves]


@pytest.mark.fault("C01")
async def test_a_child_that_is_killed_costs_no_message_and_another_takes_its_place(parser: Parser) -> None:
    first = await wait_child(parser)
    os.kill(first, signal.SIGSTOP)
    asking = asyncio.create_task(parser.make(PAGE, MANY))
    await asyncio.sleep(0)
    os.kill(first, signal.SIGKILL)
    assert await asyncio.wait_for(asking, 30) == here()
    await wait_child(parser, other_than=first)
    assert await parser.make(PAGE, MANY) == here()


async def test_a_child_that_does_not_answer_is_ended_and_its_page_made_here(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ingest.parser.ANSWER_TIMEOUT_S", 0.2)
    os.kill(await wait_child(parser), signal.SIGSTOP)
    assert await asyncio.wait_for(parser.make(PAGE, MANY), 30) == here()


async def test_who_is_cancelled_while_waiting_leaves_the_others_their_answers(parser: Parser) -> None:
    await wait_child(parser)
    gone = asyncio.create_task(parser.make(PAGE, MANY))
    stays = asyncio.create_task(parser.make(PAGE, MANY[:50]))
    await asyncio.sleep(0)
    gone.cancel()
    assert await asyncio.wait_for(stays, 30) == here()[:50]
    assert await asyncio.wait_for(parser.make(PAGE, MANY), 30) == here()


async def test_without_a_child_everything_is_made_here() -> None:
    assert await Parser(SystemClock()).make(PAGE, MANY) == here()


async def test_no_child_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    one = Parser(SystemClock())
    async with running(one):
        pid = await wait_child(one)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_single_core_has_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    begun = list[str]()

    async def live() -> None:
        begun.append("a child")

    one = Parser(SystemClock())
    monkeypatch.setattr(one, "_live", live)
    async with running(one):
        await asyncio.sleep(0)
        await one.started()
    assert not begun


async def made_by(parser: Parser, messages: list[Read], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where this process makes the events of a page: on the `loop` or in a `thread`; what a child makes is not seen."""
    seen: list[str] = []

    def watched(page: Page, message: Read) -> Made:
        seen.append("loop" if threading.current_thread() is threading.main_thread() else "thread")
        return make(page, message)

    monkeypatch.setattr("service.ingest.parser.make", watched)
    assert await parser.make(PAGE, messages) == [make(PAGE, message) for message in messages]
    return seen


FROM = b"From: ann@example.org\r\n"
SMALL = Read(1, 3_000, {}, NOW, FROM + b"Subject: small\r\n\r\n" + b"word " * 600, True)
LARGE = Read(2, 100_000, {}, NOW, FROM + b"Subject: large\r\n\r\n" + b"word " * 20_000, True)


async def test_a_large_mail_alone_is_made_by_a_child_that_has_nothing_to_do(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await wait_child(parser)
    assert await made_by(parser, [LARGE], monkeypatch) == []
    assert await made_by(parser, [SMALL], monkeypatch) == ["loop"]


async def test_a_large_mail_does_not_hold_the_loop_nor_wait_for_a_child_that_is_busy(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(await wait_child(parser), signal.SIGSTOP)
    busy = asyncio.create_task(parser.make(PAGE, MANY))
    await asyncio.sleep(0)
    assert await made_by(parser, [SMALL, LARGE], monkeypatch) == ["loop", "thread"]
    busy.cancel()


REPORT = Read(
    3,
    15_000,
    {},
    NOW,
    b"From: MAILER-DAEMON@mx.example.org\r\nSubject: failure notice\r\n\r\n"
    + b"".join(b"<user%d@example.org>: 550 5.1.1 no such user %d\r\n" % (n, n) for n in range(200)),
    True,
)


async def test_a_report_is_understood_beside_the_loop_though_it_is_small(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await made_by(Parser(SystemClock()), [SMALL, REPORT], monkeypatch) == ["loop", "thread"]
    await wait_child(parser)
    assert await made_by(parser, [REPORT], monkeypatch) == []


async def test_what_a_shop_writes_by_itself_waits_for_nobody(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    await wait_child(parser)
    fields = b"Auto-Submitted: auto-generated\r\nX-Auto-Response-Suppress: All\r\n"
    order = Read(4, 3_000, {}, NOW, fields + (SMALL.body or b""), True)
    assert await made_by(parser, [order], monkeypatch) == ["loop"]


async def test_each_mail_is_looked_at_once(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[bytes] = []

    def watched(mail: bytes) -> bool:
        looked_at.append(mail)
        return takes_long(mail)

    monkeypatch.setattr("service.ingest.parser.takes_long", watched)
    await wait_child(parser)
    for one in (parser, Parser(SystemClock())):
        await one.make(PAGE, [SMALL] * 3)
        assert looked_at == [SMALL.body] * 3
        looked_at.clear()


async def test_a_mail_that_takes_long_whatever_its_size_lets_others_have_their_turn_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    turns: list[int] = []

    def slow(page: Page, message: Read) -> Made:
        nonlocal now
        now += 0.05
        turns.append(turn)
        return make(page, message)

    monkeypatch.setattr("service.ingest.parser.make", slow)
    clock = SystemClock()
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    turn = 0
    making = asyncio.create_task(Parser(clock).make(PAGE, [SMALL] * 3))
    while not making.done():
        await asyncio.sleep(0)
        turn += 1
    assert len(set(turns)) == 3
