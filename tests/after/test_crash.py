"""Ended at each step, and with its connection cut at each command: what is done is that of a run without trouble."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from service.after import act as act_file
from service.after import hands as hands_file
from service.after import work as work_file
from service.bus import Bus
from service.contract import After
from tests.after.harness import (
    DELETE,
    MOVE,
    SEEN,
    Desk,
    announce,
    look,
    make,
    uidvalidity,
    wait_done,
    working,
)
from tests.ingest.harness import Box
from tests.ingest.view import quick
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import until
from tests.servers.proxy import FaultProxy, Way

That = Callable[[str], Dovecot]
CASES = [(SEEN, "qresync"), (DELETE, "qresync"), (MOVE, "qresync"), (MOVE, "uidplus"), (MOVE, "old")]
# With and without what a copy is known by, and one mail that is there twice.
MAILS = [
    b"Message-ID: <1@x>\r\nSubject: one\r\n\r\n1\r\n",
    b"Subject: two\r\n\r\n22\r\n",
    b"Message-ID: <3@x>\r\nSubject: twice\r\n\r\n3\r\n",
    b"Message-ID: <3@x>\r\nSubject: twice\r\n\r\n3\r\n",
]


class Killed(BaseException):
    """The process ends here."""


def ends(server: Dovecot, user: str) -> dict[str, Counter[tuple[str, bool, bool]]]:
    """What both mailboxes hold: subject, seen, marked as deleted."""
    return {
        mailbox: Counter(
            (subject, "\\Seen" in flags, "\\Deleted" in flags) for subject, flags in look(server, user, mailbox)
        )
        for mailbox in ("INBOX", "Done")
    }


async def trial(
    bus: Bus, server: Dovecot, user: str, rule: After, disturb: Callable[[Box], Awaitable[None]]
) -> dict[str, Counter[tuple[str, bool, bool]]]:
    """Five mails, of which the last is not announced; a disturbance; a start that ends it."""
    box = quick(server, user, after=rule, account=user)
    await asyncio.to_thread(make, server, user, "Done")
    await server.append(user, [*MAILS, b"Subject: not ours\r\n\r\n5\r\n"])
    await server.append(user, [MAILS[0]], "Done")  # one that was there already is no copy
    seq = await announce(bus, box, await asyncio.to_thread(uidvalidity, server, user), [1, 2, 3, 4])
    await disturb(box)
    async with working(bus, box):
        await wait_done(bus, box, seq)
    return await asyncio.to_thread(ends, server, user)


def expected(rule: After, habit: str) -> dict[str, Counter[tuple[str, bool, bool]]]:
    names = ["one", "two", "twice", "twice"]
    rest = Counter({("not ours", False, False): 1})
    there = Counter({("one", False, False): 1})
    if rule is SEEN:
        return {"INBOX": rest + Counter((name, True, False) for name in names), "Done": there}
    if rule is DELETE:
        return {"INBOX": rest, "Done": there}
    marked = Counter((name, False, True) for name in names) if habit == "old" else Counter()
    return {"INBOX": rest + marked, "Done": there + Counter((name, False, False) for name in names)}


@pytest.mark.fault("D01")
@pytest.mark.parametrize(("rule", "habit"), CASES)
async def test_ended_at_every_step(
    bus: Bus, dovecot_that: That, prefix: str, monkeypatch: pytest.MonkeyPatch, rule: After, habit: str
) -> None:
    server = dovecot_that(habit)
    names: list[str] = []
    stop_at = 0

    def step(name: str) -> None:
        names.append(name)
        if len(names) == stop_at:
            raise Killed

    monkeypatch.setattr(work_file, "step", step)
    monkeypatch.setattr(act_file, "step", step)
    monkeypatch.setattr(hands_file, "step", step)

    async def nothing(_box: Box) -> None:
        names.clear()

    async def killed(box: Box) -> None:
        names.clear()
        with pytest.raises(BaseExceptionGroup) as ended:
            async with working(bus, box):
                await asyncio.sleep(20)
        assert ended.group_contains(Killed)

    assert await trial(bus, server, f"{prefix}0", rule, nothing) == expected(rule, habit)
    clean = list(names)
    assert {"after.read", "after.acted", "after.done"} <= set(clean)
    assert ("after.copied" in clean) == (rule is MOVE and habit != "qresync")
    for number, name in enumerate(clean, 1):
        stop_at = number
        assert await trial(bus, server, f"{prefix}{number}", rule, killed) == expected(rule, habit), name
        stop_at = 0


COMMAND = re.compile(rb"^\S+ (SELECT|EXAMINE|STATUS|NOOP|UID [A-Z]+)", re.MULTILINE)


@pytest.mark.fault("G10", "D01")
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize(("rule", "habit"), [(DELETE, "qresync"), (MOVE, "qresync"), (MOVE, "uidplus")])
async def test_cut_at_every_command_and_at_every_answer(
    bus: Bus,
    dovecot_that: That,
    prefix: str,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
    rule: After,
    habit: str,
    answered: bool,
) -> None:
    server = dovecot_that(habit)
    proxy = await fault_proxy(server.host, server.imap)
    commands: list[str] = []
    cut_at, cut = 0, False

    def watch(way: Way, chunk: bytes) -> bytes:
        nonlocal cut
        found = COMMAND.search(chunk) if way is Way.TO_SERVER else None
        if found is not None:
            commands.append(found[1].decode())
        # With an answer that is cut off the server has done it, and nobody hears of it.
        if not cut and cut_at and len(commands) == cut_at and way is (Way.TO_CLIENT if answered else Way.TO_SERVER):
            cut = True
            proxy.cut_after(0, way)
        return chunk

    async def through(box: Box) -> None:
        commands.clear()
        proxy.watch = watch
        before = proxy.connections
        async with working(bus, replace(box, port=proxy.port)) as desk:
            await until(lambda: _is_idle(desk))
        assert proxy.connections - before == 1 + cut

    assert await trial(bus, server, f"{prefix}0", rule, through) == expected(rule, habit)
    clean = list(commands)
    for number, name in enumerate(clean, 1):
        cut_at, cut = number, False
        assert await trial(bus, server, f"{prefix}{number}", rule, through) == expected(rule, habit), name
        proxy.heal()
        cut_at = 0


def _is_idle(desk: Desk) -> bool:
    boxes = list(desk.work._mailboxes.values())
    return bool(boxes) and all(b.kept._record and b.kept.record.seq and b.look_at == float("inf") for b in boxes)


@pytest.mark.fault("D02")
async def test_of_two_writers_one_is_at_it(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    both = {"one/1", "two/1"}

    async def with_another(box: Box) -> None:
        async with (
            working(bus, replace(box, writer="one/1"), alive=both) as one,
            working(bus, replace(box, writer="two/1"), alive=both) as two,
        ):
            await until(
                lambda: any(box.kept._last_writer for work in (one.work, two.work) for box in work._mailboxes.values())
            )

    assert await trial(bus, dovecot, prefix, MOVE, with_another) == expected(MOVE, "qresync")


@pytest.mark.fault("D02")
@pytest.mark.parametrize("alive", [set(), {"two/1"}])
async def test_what_another_was_at_is_taken_over_at_once_where_it_is_gone_and_later_where_it_lives(
    bus: Bus, dovecot: Dovecot, prefix: str, alive: set[str]
) -> None:
    box = quick(dovecot, prefix, after=DELETE)
    await dovecot.append(prefix, MAILS)
    seq = await announce(bus, box, await asyncio.to_thread(uidvalidity, dovecot, prefix), [1, 2])
    async with working(bus, replace(box, writer="two/1")):
        assert (await wait_done(bus, box, seq)).writer == "two/1"
    seq = await announce(bus, box, await asyncio.to_thread(uidvalidity, dovecot, prefix), [3, 4], fence=seq)
    async with working(bus, box, alive=alive):
        assert (await wait_done(bus, box, seq)).writer == "one/1"
