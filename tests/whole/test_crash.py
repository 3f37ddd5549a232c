"""mailbus itself, ended at every durable effect and started again: the log is that of a run without trouble."""

import asyncio
import json
import random
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from service.bus import StreamOptions, wanted_streams
from service.contract import Subjects
from service.observe.steps import STOP_EXIT_CODE
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import BusReader, Event, Mailbus, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy, Way

Maker = Callable[..., Mailbus]
FORGETS_AFTER_S = 0.1
NO_STREAM = 404


def mails() -> list[bytes]:
    """A text, one with a file, one broken, one more text."""
    with_file = EmailMessage()
    with_file["Subject"] = "with a file"
    with_file.set_content("see the file")
    with_file.add_attachment(bytes(range(256)) * 40, maintype="application", subtype="pdf", filename="a.pdf")
    broken = b"Subject: broken\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!%%%\r\n"
    return [b"Subject: one\r\n\r\n1\r\n", with_file.as_bytes(), broken, b"Subject: last\r\n\r\n4\r\n"]


def told(events: list[Event]) -> list[object]:
    """What consumers were told, without what may differ from run to run."""
    return [(event.kind, event.body, event.headers["ce-subject"], event.headers["ce-type"]) for event in events]


def blobs_of(body: dict[str, object]) -> list[str]:
    parts = [*body.get("attachments", []), *body.get("textBody", []), body]  # type: ignore[misc]
    return [part["blobId"] for part in parts if part.get("blobId")]


def telling(names: list[str]) -> list[int]:
    """The numbers of the steps to end at: each, but only the first and the last of the streams that are made in a row.

    Fourteen are made by the same request, and only their number is another.
    """
    streams = [number for number, name in enumerate(names, 1) if name.startswith("stream.")]
    return [number for number in range(1, len(names) + 1) if number not in streams[2:-2]]


async def whole_run(one: Mailbus, reader: BusReader, count: int) -> list[Event]:
    """Start, wait until all is announced, stop."""
    one.start()
    await one.started()
    await reader.wait_received(count)
    assert await one.stop() == 0
    return await reader.events()


@pytest.mark.fault("D01", "D09")
@pytest.mark.timeout(300)
async def test_ended_at_every_step_it_goes_on_as_if_nothing_had_been(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, tmp_path: Path
) -> None:
    await dovecot.append(prefix, mails())
    steps = tmp_path / "steps"
    async with reading(own_nats.url, "clean") as reader:
        one = mailbus(settings_for(own_nats.url, "clean", imap_account(dovecot, prefix)))
        one.env["MAILBUS_STEPS_LOG"] = str(steps)
        clean = told(await whole_run(one, reader, 4))
    names = steps.read_text().splitlines()
    assert {"fetch.done", "blob.before", "blob.done", "batch.open", "commit.answered", "copy.done"} <= set(names)

    async def stopped_at(number: int) -> None:
        own = f"s{number}"
        one = mailbus(settings_for(own_nats.url, own, imap_account(dovecot, prefix), instance=f"i{number}"))
        one.start(MAILBUS_STOP_AT=str(number))
        await until(lambda: one.exited is not None or bool(one.said("stopped")) or _idles(one), what=f"step {number}")
        if one.exited is None:
            await one.stop()  # the last steps belong to the stop itself
        assert one.exited == STOP_EXIT_CODE, names[number - 1]
        async with reading(own_nats.url, own) as reader:
            events = await whole_run(one, reader, 4)
            assert told(events) == clean, names[number - 1]
            store = await reader.nc.jetstream().object_store(f"{own}-blobs")
            for event in events:
                for blob in blobs_of(event.body):
                    await store.get(blob)
            for stream in ("IN", "OUT", "LATER", "STATUS", "DEAD"):
                await reader.nc.jetstream().delete_stream(f"{own.upper()}_{stream}")

    places = asyncio.Semaphore(3)

    async def in_turn(number: int) -> None:
        async with places:
            await stopped_at(number)

    async with asyncio.TaskGroup() as group:
        for number in telling(names):
            group.create_task(in_turn(number))


@pytest.mark.fault("A08", "D01")
@pytest.mark.timeout(300)
async def test_ended_at_every_step_a_mail_that_cannot_be_had_is_one_event_and_one_dead_letter(
    imap_stub: ImapStub, own_nats: NatsServer, mailbus: Maker, tmp_path: Path
) -> None:
    imap_stub.messages = {uid: b"Subject: mail %d\r\n\r\nx\r\n" % uid for uid in (1, 2, 3)}
    withhold(imap_stub, 2)
    steps = tmp_path / "steps"
    account = {
        "id": "box",
        "address": "me@example.com",
        "password": "secret",
        "incoming": {"imap": {"host": "127.0.0.1", "port": imap_stub.port, "security": "none"}, "initial": "all"},
    }

    async def run(own: str, number: int) -> tuple[list[Event], list[Event]]:
        one = mailbus(settings_for(own_nats.url, own, account, instance=own))
        async with reading(own_nats.url, own) as reader:
            if number:
                one.start(MAILBUS_STOP_AT=str(number))
                await until(lambda: one.exited is not None or _idles(one), what=f"step {number}")
                if one.exited is None:
                    await one.stop()
                await forget_letters(reader)
            else:
                one.env["MAILBUS_STEPS_LOG"] = str(steps)
            one.start()
            await reader.wait_received(3)
            await until(lambda: any(line["state"] == "connected" for line in one.said("account_state")))
            assert await one.stop() == 0
            return await reader.events(), await reader.events("DEAD")

    clean, letters = await run("clean", 0)
    assert [event.body.get("subject") for event in clean] == [None, "mail 1", None, "mail 3"]
    assert [letter.headers["ce-id"] for letter in letters] == [clean[2].headers["ce-id"]]
    names = steps.read_text().splitlines()
    first = names.index("fetch.done") + 1
    assert {"commit.sending", "commit.done", "dead.before", "dead.done", "copy.done"} <= set(names[first:])
    places = asyncio.Semaphore(3)

    async def stopped_at(number: int) -> None:
        async with places:
            events, dead = await run(f"d{number}", number)
        assert told(events) == told(clean), names[number - 1]
        assert [(one.headers["ce-subject"], one.body) for one in dead] == [
            (one.headers["ce-subject"], one.body) for one in letters
        ], names[number - 1]
        assert "Mail-Cursor" not in dead[0].headers

    async with asyncio.TaskGroup() as group:
        for number in range(first, len(names) + 1):
            group.create_task(stopped_at(number))


def withhold(stub: ImapStub, uid: int) -> None:
    """The server shows this message and does not give it."""

    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        wanted, _, items = arguments.partition(" ")
        if "BODY" not in items or uid not in stub.uids_of(wanted):
            return False
        for other in stub.uids_of(wanted):
            if other != uid:
                await connection.send(stub.fetch(other, body=True))
        await connection.send(f"{tag} OK done\r\n")
        return True

    stub.hooks["UID FETCH"] = fetch


async def forget_letters(reader: BusReader) -> None:
    """The stream of dead letters forgets their ids, as if the window were over in which NATS knows them."""
    subjects = Subjects(reader.prefix)
    (config,) = (one for one in wanted_streams(subjects, StreamOptions(), 1) if one["name"] == subjects.stream_dead)
    for window in (FORGETS_AFTER_S * 1_000_000_000, config["duplicate_window"]):
        wanted = json.dumps(config | {"duplicate_window": int(window)}).encode()
        made = json.loads((await reader.nc.request(f"$JS.API.STREAM.UPDATE.{subjects.stream_dead}", wanted)).data)
        if made.get("error", {}).get("code") == NO_STREAM:
            return  # it ended before it was made
        assert "error" not in made, made
        await asyncio.sleep(2 * FORGETS_AFTER_S)


def _idles(one: Mailbus) -> bool:
    return any(line.get("behind") == 0 for line in one.said("batch_committed"))


@pytest.mark.fault("D01")
@pytest.mark.timeout(300)
async def test_killed_again_and_again_every_message_is_announced_once_and_in_order(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, fault_proxy
) -> None:
    count = 3000
    filler = b"x" * 1500
    await dovecot.append(prefix, [b"Subject: mail %d\r\n\r\n%b\r\n" % (n, filler) for n in range(count)])
    # Slowly enough that it is killed in the middle of things, many times.
    proxy: FaultProxy = await fault_proxy(dovecot.host, dovecot.imap)
    proxy.delay_s[Way.TO_CLIENT] = 0.02
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix, port=proxy.port)))
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    kills = 0
    async with reading(own_nats.url, prefix) as reader:
        while kills < 12:
            one.start()
            await one.started()
            await asyncio.sleep(chance.uniform(0.0, 0.35))
            one.kill()
            kills += 1
            if await reader.count(f"{prefix}.in.*.*.received") >= count:
                break
        proxy.heal()
        one.start()
        await one.started()
        events = await reader.wait_received(count)
        assert await one.stop() == 0
        events = await reader.received()
    assert kills > 5
    assert [event.body["subject"] for event in events] == [f"mail {n}" for n in range(count)]


@pytest.mark.fault("D13")
@pytest.mark.timeout(300)
async def test_nats_killed_in_the_middle_nothing_is_lost_or_doubled(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, fault_proxy
) -> None:
    count = 1500
    await dovecot.append(prefix, [b"Subject: mail %d\r\n\r\n%b\r\n" % (n, b"x" * 1500) for n in range(count)])
    proxy: FaultProxy = await fault_proxy(dovecot.host, dovecot.imap)
    proxy.delay_s[Way.TO_CLIENT] = 0.05
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix, port=proxy.port)))
    one.start()
    await one.started()
    for _ in range(4):
        await asyncio.sleep(0.3)
        await own_nats.restart()
    proxy.heal()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(count)
        assert await one.stop() == 0
        events = await reader.received()
    assert [event.body["subject"] for event in events] == [f"mail {n}" for n in range(count)]


@pytest.mark.fault("D03", "D09")
async def test_killed_when_the_commit_was_done_and_its_answer_lost(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, fault_proxy
) -> None:
    await dovecot.append(prefix, mails())
    proxy: FaultProxy = await fault_proxy("127.0.0.1", own_nats.port)
    seen = asyncio.Event()

    def watch(way: Way, chunk: bytes) -> bytes:
        if way is Way.TO_SERVER and b"Mail-Cursor" in chunk and b"Nats-Batch-Commit" in chunk:
            proxy.swallow(Way.TO_CLIENT)
            seen.set()
        return chunk

    proxy.watch = watch
    one = mailbus(settings_for(f"nats://127.0.0.1:{proxy.port}", prefix, imap_account(dovecot, prefix)))
    one.start()
    async with reading(own_nats.url, prefix) as reader:
        await asyncio.wait_for(seen.wait(), 30)
        await reader.wait_received(4)
        one.kill()
        proxy.heal()
        one.start()
        await one.started()
        await dovecot.append(prefix, [b"Subject: five\r\n\r\n5\r\n"])
        await reader.wait_received(5)
        assert await one.stop() == 0
        events = await reader.received()
    assert [event.body["subject"] for event in events] == ["one", "with a file", "broken", "last", "five"]


@pytest.mark.fault("A20")
async def test_stopped_after_the_first_connect_three_mails_that_came_meanwhile_are_three_events(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix, initial="new")))
    one.start()
    await until(lambda: one.log_file.exists() and bool(one.said("epoch_begins")))
    await until(lambda: any(line["state"] == "connected" for line in one.said("account_state")))
    assert await one.stop() == 0
    await dovecot.append(prefix, [b"Subject: %d\r\n\r\nx\r\n" % n for n in range(3)])
    one.start()
    async with reading(own_nats.url, prefix) as reader:
        events = await reader.wait_received(3)
        assert await one.stop() == 0
    assert [event.body["subject"] for event in events] == ["0", "1", "2"]
