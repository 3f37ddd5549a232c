"""What an account's rule does to its mail, on Dovecot with everything, without MOVE, and without UIDPLUS."""

import asyncio
from collections.abc import Callable

import pytest

from service.after.plan import Copying, Left, Record, dump_record
from service.bus import Bus
from service.contract import AFTER_HEADER, After, AfterKind, mailbox_id
from service.parsing import Raw
from tests.after.harness import (
    DELETE,
    MOVE,
    SEEN,
    announce,
    begin_epoch,
    doing,
    fingerprints,
    look,
    make,
    record,
    subjects,
    uidvalidity,
    wait_done,
    wait_subjects,
    working,
)
from tests.ingest.harness import following
from tests.ingest.view import act, mail, quick, seen, watching
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import BusReader, until

That = Callable[[str], Dovecot]


def mails(first: int, last: int) -> list[bytes]:
    return [b"Message-ID: <%d@x>\r\n%b" % (n, mail(n)) for n in range(first, last + 1)]


def named(*numbers: int) -> list[str]:
    return [f"mail {n}" for n in numbers]


async def test_nothing_is_what_is_done_unless_it_is_said(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, mails(1, 1))
    reader = BusReader(bus.nc, prefix)
    async with doing(bus, quick(dovecot, prefix)) as desk:
        await seen(reader, {1: set()})
        await watching(desk.box)
    assert AFTER_HEADER not in (await reader.received())[0].headers
    assert await asyncio.to_thread(look, dovecot, prefix) == [("mail 1", set())]


async def test_seen_is_marked_and_told_as_any_change_is(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, mails(1, 3))
    reader = BusReader(bus.nc, prefix)
    async with doing(bus, quick(dovecot, prefix, after=SEEN)):
        await seen(reader, {n: {"$seen"} for n in (1, 2, 3)})
        await dovecot.append(prefix, mails(4, 4))
        found = await seen(reader, {n: {"$seen"} for n in (1, 2, 3, 4)})
    assert sorted(told for told in found.told if told[0] == "changed") == [("changed", n) for n in (1, 2, 3, 4)]
    assert {event.headers[AFTER_HEADER] for event in await reader.received()} == {"seen"}


async def test_what_is_seen_no_more_is_left_so(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, mails(1, 2))
    reader, box = BusReader(bus.nc, prefix), quick(dovecot, prefix, after=SEEN)
    async with doing(bus, box):
        await seen(reader, {1: {"$seen"}, 2: {"$seen"}})
        await act(dovecot, prefix, ("STORE", "1", "-FLAGS", r"(\Seen)"))
        await seen(reader, {1: set(), 2: {"$seen"}})
        await wait_done(bus, box, (await reader.received())[-1].seq)
    async with doing(bus, box):  # a start does it no second time
        await dovecot.append(prefix, mails(3, 3))
        await seen(reader, {1: set(), 2: {"$seen"}, 3: {"$seen"}})


@pytest.mark.fault("G10")
@pytest.mark.parametrize("habit", ["qresync", "uidplus"])
async def test_deleted_is_what_was_announced_and_nothing_that_others_marked(
    bus: Bus, dovecot_that: That, prefix: str, habit: str
) -> None:
    server = dovecot_that(habit)
    await server.append(prefix, mails(1, 3))
    await act(server, prefix, ("STORE", "2", "+FLAGS", r"(\Deleted)"))
    reader = BusReader(bus.nc, prefix)
    # What was there before the starting line was never announced.
    box = quick(server, prefix, after=DELETE, initial="new")
    async with doing(bus, box):
        await watching(box)
        await server.append(prefix, mails(4, 6))
        found = await seen(reader, {})
        while len(found.told) < 6:
            found = await seen(reader, {})
    assert sorted(found.told) == [(kind, n) for kind in ("received", "removed") for n in (4, 5, 6)]
    assert await asyncio.to_thread(look, server, prefix) == [
        ("mail 1", set()),
        ("mail 2", {"\\Deleted"}),
        ("mail 3", set()),
    ]


@pytest.mark.fault("G10")
@pytest.mark.parametrize("habit", ["qresync", "uidplus"])
async def test_moved_is_what_was_announced_and_nothing_that_others_marked(
    bus: Bus, dovecot_that: That, prefix: str, habit: str
) -> None:
    server = dovecot_that(habit)
    await asyncio.to_thread(make, server, prefix, "Done")
    await server.append(prefix, mails(1, 1))
    await act(server, prefix, ("STORE", "1", "+FLAGS", r"(\Deleted)"))
    reader = BusReader(bus.nc, prefix)
    box = quick(server, prefix, after=MOVE, initial="new")
    async with doing(bus, box):
        await watching(box)
        await server.append(prefix, mails(2, 5))
        await act(server, prefix, ("STORE", "3", "+FLAGS", r"(\Flagged)"))
        await wait_subjects(server, prefix, named(2, 3, 4, 5), "Done")
        await wait_subjects(server, prefix, named(1))
        await seen(reader, {})
    assert (await asyncio.to_thread(look, server, prefix))[0][1] == {"\\Deleted"}
    assert await subjects(server, prefix, "Done") == named(2, 3, 4, 5)


@pytest.mark.fault("G10")
@pytest.mark.parametrize("rule", [DELETE, MOVE])
async def test_without_uidplus_mail_is_marked_and_that_is_said_once(
    bus: Bus, dovecot_that: That, prefix: str, rule: After
) -> None:
    server = dovecot_that("old")
    await asyncio.to_thread(make, server, prefix, "Done")
    await server.append(prefix, mails(1, 2))
    await act(server, prefix, ("STORE", "1", "+FLAGS", r"(\Deleted)"))
    reader = BusReader(bus.nc, prefix)
    box = quick(server, prefix, after=rule, initial="new")
    async with doing(bus, box) as desk:
        await watching(box)
        for n in (3, 4):
            await server.append(prefix, mails(n, n))
            await wait_done(bus, box, (await reader.wait_received(n - 2))[-1].seq)
        assert [error.what for error in desk.said if "UIDPLUS" in error.what] == [
            "the mail server cannot expunge single messages (no UIDPLUS): mail is marked as deleted, and stays"
        ]
    marked = [(subject, "\\Deleted" in flags) for subject, flags in await asyncio.to_thread(look, server, prefix)]
    assert marked == [("mail 1", True), ("mail 2", False), ("mail 3", True), ("mail 4", True)]
    assert await subjects(server, prefix, "Done") == (named(3, 4) if rule is MOVE else [])
    # From the log's beginning: what is marked is done.
    await bus.key_value(bus.subjects.after).delete("box." + (await _key(bus)))
    async with working(bus, box):
        await wait_done(bus, box, (await reader.received())[-1].seq)
    assert await subjects(server, prefix, "Done") == (named(3, 4) if rule is MOVE else [])


async def _key(bus: Bus) -> str:
    (key,) = await bus.key_value(bus.subjects.after).keys()
    return key.partition(".")[2]


@pytest.mark.fault("D16")
async def test_nothing_is_deleted_before_its_time(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, mails(1, 2))
    box = quick(dovecot, prefix, after=DELETE)
    async with doing(bus, box, delay_s=3600) as desk:
        await BusReader(bus.nc, prefix).wait_received(2)
        (kept,) = desk.work._mailboxes.values()
        await until(lambda: 3500 < kept.look_at - asyncio.get_running_loop().time() < 3600)
        assert kept.failures == 0
    assert await subjects(dovecot, prefix) == named(1, 2)
    events = await BusReader(bus.nc, prefix).received()
    assert (found := await record(bus, box)) is None or found.seq < events[0].seq


@pytest.mark.fault("D16")
async def test_what_nats_has_forgotten_is_not_deleted(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, mails(1, 3))
    reader, box = BusReader(bus.nc, prefix), quick(dovecot, prefix, after=DELETE)
    async with doing(bus, box, delay_s=3600):
        events = await reader.wait_received(3)
    # As after a power cut: confirmed, and not there any more.
    await bus.nc.jetstream().delete_msg(bus.subjects.stream_in, events[1].seq)
    async with working(bus, box):
        await wait_done(bus, box, events[2].seq)
    assert await subjects(dovecot, prefix) == named(2)


@pytest.mark.fault("D16")
async def test_a_log_that_lost_its_end_is_dealt_with_anew(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, mails(1, 4))
    reader, box = BusReader(bus.nc, prefix), quick(dovecot, prefix, after=DELETE)
    async with following(bus, box):
        events = await reader.wait_received(4)
    async with working(bus, box):
        await wait_subjects(dovecot, prefix, [])
        done = await wait_done(bus, box, events[-1].seq)
    # Another event stands where the record ends: what follows was never dealt with, whatever its sequence.
    await dovecot.append(prefix, mails(5, 5))
    async with following(bus, box):
        events = await reader.wait_received(5)
    entry = await bus.key_value(bus.subjects.after).get("box." + (await _key(bus)))
    assert entry is not None
    forged = entry.value.replace(b'"seq":%d' % done.seq, b'"seq":%d' % events[-1].seq)
    assert forged != entry.value
    await bus.key_value(bus.subjects.after).update("box." + (await _key(bus)), forged, entry.revision)
    async with working(bus, box):
        await wait_subjects(dovecot, prefix, [])


async def test_what_was_announced_under_another_rule_is_left_alone(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, mails(1, 1))
    reader = BusReader(bus.nc, prefix)
    async with following(bus, quick(dovecot, prefix)):
        await reader.wait_received(1)
    await dovecot.append(prefix, mails(2, 2))
    async with following(bus, quick(dovecot, prefix, after=SEEN)):
        await reader.wait_received(2)
    await dovecot.append(prefix, mails(3, 3))
    box = quick(dovecot, prefix, after=DELETE)
    async with doing(bus, box):
        await wait_done(bus, box, (await reader.wait_received(3))[-1].seq)
        await wait_subjects(dovecot, prefix, named(1, 2))
    assert await asyncio.to_thread(look, dovecot, prefix) == [("mail 1", set()), ("mail 2", set())]


@pytest.mark.fault("A05")
async def test_nothing_of_a_new_epoch_is_touched(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await asyncio.to_thread(make, dovecot, prefix, "Box")
    await dovecot.append(prefix, mails(1, 3), "Box")
    reader = BusReader(bus.nc, prefix)
    box = quick(dovecot, prefix, after=DELETE, mailbox="Box")
    async with following(bus, box):
        events = await reader.wait_received(3)

    def again() -> None:
        with dovecot.client(prefix) as client:
            assert client.delete("Box")[0] == "OK"
        make(dovecot, prefix, "Box")

    await asyncio.to_thread(again)
    await dovecot.append(prefix, mails(4, 6), "Box")
    async with working(bus, box):
        await wait_done(bus, box, events[-1].seq)
    assert await subjects(dovecot, prefix, "Box") == named(4, 5, 6)


@pytest.mark.parametrize("rule", [SEEN, DELETE, MOVE])
async def test_nothing_of_an_epoch_that_is_over_is_touched_where_the_uidvalidity_is_the_same(
    bus: Bus, dovecot: Dovecot, prefix: str, rule: After
) -> None:
    await asyncio.to_thread(make, dovecot, prefix, "Done")
    await dovecot.append(prefix, mails(1, 3))
    epoch = await asyncio.to_thread(uidvalidity, dovecot, prefix)
    box = quick(dovecot, prefix, after=rule)
    fence = await begin_epoch(bus, box, fence=await announce(bus, box, epoch, [1, 2]))
    seq = await announce(bus, box, epoch, [3], fence=fence)
    async with working(bus, box):
        await wait_done(bus, box, seq)
    there = await asyncio.to_thread(look, dovecot, prefix)
    assert there[:2] == [("mail 1", set()), ("mail 2", set())]
    assert there[2:] == ([("mail 3", {"\\Seen"})] if rule is SEEN else [])


@pytest.mark.fault("A06")
@pytest.mark.parametrize("rule", [DELETE, MOVE, SEEN])
async def test_another_mail_under_the_uid_of_an_announced_one_is_left_alone(
    bus: Bus, dovecot: Dovecot, prefix: str, rule: After
) -> None:
    # As where a name went to another mailbox of the same UIDVALIDITY, and its log does not say so yet.
    await dovecot.append(prefix, mails(1, 3))
    await asyncio.to_thread(make, dovecot, prefix, "Done")
    box = quick(dovecot, prefix, after=rule)
    there = await fingerprints(box, [1, 2, 3])
    epoch = await asyncio.to_thread(uidvalidity, dovecot, prefix)
    seq = await announce(
        bus, box, epoch, [1, 2, 3], marks={1: there[1], 2: "0123456789ab", 3: f"{there[3]}:ba9876543210"}
    )
    async with working(bus, box):
        await wait_done(bus, box, seq)
    untouched = [subject for subject, flags in await asyncio.to_thread(look, dovecot, prefix) if "\\Seen" not in flags]
    assert untouched == named(2)


async def test_what_was_to_be_tried_again_ends_with_its_epoch(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, mails(1, 2))
    epoch = await asyncio.to_thread(uidvalidity, dovecot, prefix)
    box = quick(dovecot, prefix, after=DELETE)
    done = await announce(bus, box, epoch, [1])
    bounds = await bus.log.bounds()
    left = [Left(1, epoch, 1, bounds.now)]
    kept = Record(bounds.created, done, f"{prefix}-1", DELETE.mark, left, Copying([1], epoch, 1, epoch))
    await bus.key_value(bus.subjects.after).create(f"box.{mailbox_id('INBOX')}", dump_record(kept))
    seq = await announce(bus, box, epoch, [2], fence=await begin_epoch(bus, box, fence=done))
    async with working(bus, box):
        await wait_done(bus, box, seq)
    assert await subjects(dovecot, prefix) == named(1)


async def test_mail_that_is_nowhere_else_is_not_deleted(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, [mail(1), mail(3000), mail(2)])
    reader = BusReader(bus.nc, prefix)
    box = quick(dovecot, prefix, after=DELETE, message_limit=2000, raw=Raw.ALWAYS)
    async with doing(bus, box):
        await wait_done(bus, box, (await reader.wait_received(3))[-1].seq)
    # Too large to be read whole: its event has a header and a problem.
    assert await subjects(dovecot, prefix) == ["mail 3000"]


async def test_mail_that_is_moved_to_where_it_lies_stays(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, mails(1, 1))
    box = quick(dovecot, prefix, after=After(AfterKind.MOVE, "inbox"))
    async with doing(bus, box):
        await wait_done(bus, box, (await BusReader(bus.nc, prefix).wait_received(1))[-1].seq)
    assert await subjects(dovecot, prefix) == named(1)


async def test_more_than_a_batch_is_done_batch_by_batch(bus: Bus, dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, [b"Subject: %d\r\n\r\nx\r\n" % n for n in range(520)])
    box = quick(dovecot, prefix, after=DELETE)
    async with doing(bus, box):
        await wait_subjects(dovecot, prefix, [])
        await wait_done(bus, box, (await BusReader(bus.nc, prefix).wait_received(520))[-1].seq)
