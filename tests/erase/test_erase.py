"""Erased mail is nowhere on the bus any more, its neighbours stay whole, and nothing is announced again."""

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.contract import CURSOR_HEADER, AccountState, Reset, ResetReason, encode
from service.erase import Found, Wanted, blobs, erase, find, waiting, wanted_address, wanted_mails
from service.errors import Transient
from service.ingest import Copies, Cursor
from service.ingest.cursor import Copy, copy_key, dump_cursor
from service.outbound import KEY_HEADER, OUTBOX_HEADER, SENT, Bundle, Outbox, Phase
from service.outbound.sends import SendRecord, Sends
from tests.ingest.harness import Box, following
from tests.ingest.view import act, quick, watching
from tests.servers.bus import bus_at
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import BusReader, Mailbus, command, reading, settings_for, with_relay
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay

ADA = "ada@example.org"
SHARED, ALONE = b"the same file in two mails", b"a file that one mail has"


class Hurried(SystemClock):
    """A second is a hundredth."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 100)


def mail(number: int, *, sender: str = "bob@example.net", files: tuple[bytes, ...] = (), text: str = "x") -> bytes:
    head = f"From: {sender}\r\nSubject: mail {number}\r\nMIME-Version: 1.0\r\n"
    parts = [f"Content-Type: text/plain\r\n\r\n{text * number}\r\n"]
    for file in files:
        coded = base64.b64encode(file).decode()
        parts.append(f"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n{coded}\r\n")
    body = "".join(f"--b\r\n{part}" for part in parts)
    return f"{head}Content-Type: multipart/mixed; boundary=b\r\n\r\n{body}--b--\r\n".encode()


async def everything(bus: Bus) -> bytes:
    """Every byte that the streams hold."""
    found = b""
    subjects = bus.subjects
    keys = (subjects.sends, subjects.cursors, subjects.after)
    objects = (subjects.outbox, subjects.state)
    streams = (subjects.stream_in, subjects.stream_status, subjects.stream_dead)
    for stream in (*streams, *(f"KV_{one}" for one in keys), *(f"OBJ_{one}" for one in objects)):
        contents = bus.contents(stream)
        async for message in contents.read(">", after=0, last=await contents.last()):
            found += message.payload + json.dumps(message.headers).encode()
    for queue in (subjects.stream_out, subjects.stream_later):
        async for message in bus.contents(queue).waiting():
            found += message.payload + json.dumps(message.headers).encode()
    return found


async def erased(bus: Bus, wanted: Wanted) -> Found:
    found = await find(bus, wanted)
    await erase(bus, wanted, found, Hurried())
    return found


async def until_count(reader: BusReader, subject: str, count: int) -> None:
    async with asyncio.timeout(20):
        while await reader.count(subject) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def degraded(box: Box) -> list[str]:
    return [str(error) for state, error in box.states if state is AccountState.DEGRADED]


@pytest.mark.fault("G09", "A15")
async def test_an_address_is_nowhere_any_more_and_nothing_is_announced_again_or_forgotten(
    dovecot_that: Callable[[str], Dovecot], bus: Bus, reader: BusReader, prefix: str
) -> None:
    # A server that tells nothing of what happened meanwhile: only the known state does.
    server = dovecot_that("snapshot")
    await server.append(f"{prefix}a", [mail(1), mail(2, sender=ADA, files=(SHARED, ALONE))])
    # At the beginning of a line, which JSON writes as \\n before it.
    await server.append(f"{prefix}a", [mail(3, text=f"ask\r\n{ADA.upper()}\r\n"), mail(4, sender=f"x{ADA}")])
    await server.append(f"{prefix}a", [mail(5, sender=ADA)])
    await server.append(f"{prefix}b", [mail(1, files=(SHARED,))])
    box = quick(server, f"{prefix}a")
    async with following(bus, box), following(bus, quick(server, f"{prefix}b", account="other")):
        await reader.wait_received(6)
        await act(server, f"{prefix}a", ("STORE", "2", "+FLAGS", r"(\Seen)"))
        await until_count(reader, f"{prefix}.in.box.INBOX.changed", 1)
        before = await everything(bus)
        wanted = wanted_address(ADA, "*")
        found = await find(bus, wanted)
        assert found.counts == {
            "mails": 3,
            "events": 4,
            "blobs": 1,
            "statuses": 0,
            "dead_letters": 0,
            "requests": 0,
            "copies": 0,
            "left_behind": 0,
        }
        assert len(found.shared) == 1
        assert await everything(bus) == before, "looking changes nothing"
        assert box.copies is not None
        await box.copies.flush()
        # Under the eyes of the process that follows it, its last event too.
        await erased(bus, wanted)
        left = (await everything(bus)).lower()
        assert f"x{ADA}".encode() in left
        assert ADA.encode() not in left.replace(f"x{ADA}".encode(), b"")
        (alone,), (shared,) = found.blobs, found.shared
        assert not await bus.blobs().exists(alone)
        assert await bus.blobs().get(shared) == SHARED
        # What comes now is announced once, and what is removed is told, of erased mail too.
        await server.append(f"{prefix}a", [mail(6)])
        await until_count(reader, f"{prefix}.in.box.INBOX.received", 3)
        await act(server, f"{prefix}a", ("STORE", "3", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",))
        await until_count(reader, f"{prefix}.in.box.INBOX.removed", 1)
    # Nor by a start, which has the log alone.
    await act(server, f"{prefix}a", ("STORE", "1:2", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",))
    await act(server, f"{prefix}a", ("STORE", "5", "+FLAGS", r"(\Flagged)"))
    await server.append(f"{prefix}a", [mail(7)])
    again = quick(server, f"{prefix}a")
    async with following(bus, again):
        await until_count(reader, f"{prefix}.in.box.INBOX.removed", 3)
        await until_count(reader, f"{prefix}.in.box.INBOX.received", 4)
        await until_count(reader, f"{prefix}.in.box.INBOX.changed", 1)
    subjects = [event.body["subject"] for event in await reader.received() if ".box." in event.subject]
    assert subjects == ["mail 1", "mail 4", "mail 6", "mail 7"]
    assert not degraded(again)


async def test_killed_after_what_they_say_was_kept_and_before_they_went_events_count_once(
    dovecot_that: Callable[[str], Dovecot], bus: Bus, reader: BusReader, prefix: str
) -> None:
    server = dovecot_that("snapshot")
    await server.append(prefix, [mail(1), mail(2, sender=ADA), mail(3)])
    async with following(bus, quick(server, prefix)):
        await reader.wait_received(3)
    wanted = wanted_address(ADA, "box")
    found = await find(bus, wanted)
    (events,) = found.events.values()
    bounds = await bus.log.bounds()
    copies = Copies(bus.key_value(bus.subjects.cursors), SystemClock())
    (mailbox,) = found.events
    await copies.keep_erased(mailbox, events, stream_created=bounds.created, first_seq=bounds.first_seq)
    await act(server, prefix, ("STORE", "1", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",))
    box = quick(server, prefix)
    async with following(bus, box):
        await until_count(reader, f"{prefix}.in.box.INBOX.removed", 1)
    # Begun again it finds the rest.
    assert (await erased(bus, wanted)).counts["events"] == 1
    assert (await find(bus, wanted)).counts["events"] == 0
    await act(server, prefix, ("STORE", "2", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",))
    again = quick(server, prefix)
    async with following(bus, again):
        await until_count(reader, f"{prefix}.in.box.INBOX.removed", 2)
    assert not degraded(box) + degraded(again)
    assert len(await reader.received()) == 2


async def test_the_event_that_alone_says_where_a_mailbox_goes_on_goes_once_that_is_copied_though_nobody_follows_it(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await dovecot.append(prefix, [mail(1, sender=ADA)])
    async with following(bus, quick(dovecot, prefix)):
        await reader.wait_received(1)
    cursors = bus.key_value(bus.subjects.cursors)
    for key in await cursors.keys("box.*"):
        await cursors.purge(key)
    (event,) = await reader.received()
    await erased(bus, wanted_mails("box", [event.body["id"]]))
    assert await reader.received() == []
    # As a start would have written it: the next one goes on from it.
    async with following(bus, quick(dovecot, prefix)) as box:
        await watching(box)
        await dovecot.append(prefix, [mail(2)])
        await reader.wait_received(1)
    assert [one.body["subject"] for one in await reader.received()] == ["mail 2"]


async def test_an_earlier_copy_gives_the_name_and_the_beginning_of_a_mailbox_whose_token_is_a_hash(bus: Bus) -> None:
    name, subjects = "x" * 300, bus.subjects
    token, created = subjects.mailbox_token(name), (await bus.log.bounds()).created
    start, last = (Cursor("s", 7, uid, 0, "w") for uid in (1, 2))
    copies = Copies(bus.key_value(subjects.cursors), Hurried())
    event = json.dumps({"id": "m1"}).encode()
    headers = {"ce-id": "e1", "ce-subject": "m1", CURSOR_HEADER: dump_cursor(last)}
    seq = await bus.publish(subjects.event("box", name, "received"), event, headers)
    with pytest.raises(Transient, match="alone says where it goes on"):
        await erased(bus, wanted_mails("box", ["m1"]))
    await copies.write(copy_key("box", name), Copy(created, seq - 1, start, start, name))
    found = await erased(bus, wanted_mails("box", ["m1"]))
    assert list(found.events) == [f"{subjects.prefix}.in.box.{token}.*"]
    assert await copies.load(copy_key("box", name)) == Copy(created, seq, last, start, name)
    assert await bus.log.get(seq) is None


async def test_a_reset_in_the_log_gives_the_name_of_a_mailbox_whose_token_is_a_hash(bus: Bus) -> None:
    name, subjects = "x" * 300, bus.subjects
    created, last = (await bus.log.bounds()).created, Cursor("s", 7, 2, 0, "w")
    reset = Reset(name, ResetReason.START, 7, None)
    await bus.publish(subjects.event("box", name, "reset"), encode(reset), {"ce-id": "e0"})
    headers = {"ce-id": "e1", "ce-subject": "m1", CURSOR_HEADER: dump_cursor(last)}
    seq = await bus.publish(subjects.event("box", name, "received"), json.dumps({"id": "m1"}).encode(), headers)
    await erased(bus, wanted_mails("box", ["m1"]))
    copies = Copies(bus.key_value(subjects.cursors), Hurried())
    assert await copies.load(copy_key("box", name)) == Copy(created, seq, last, last, name)
    assert await bus.log.get(seq) is None


async def test_a_blob_that_a_new_mail_names_meanwhile_is_there_again(
    bus: Bus, nats_server: NatsServer, prefix: str
) -> None:
    now = datetime.now(UTC)
    async with bus_at(nats_server.url, prefix) as process, process.hearing(process.subjects.forget, process.forget):
        names = [await process.blobs().put(content, now=now) for content in (SHARED, ALONE)]
        since = await bus.contents(bus.subjects.stream_in).last()

        class Meanwhile(SystemClock):
            """What another process does while the eraser waits: it believes the file to be there, and commits."""

            async def sleep(self, seconds: float) -> None:
                event = json.dumps({"attachments": [{"blobId": names[0]}]}).encode()
                await process.publish(process.subjects.event("box", "INBOX", "received"), event)

        assert await blobs.remove_blobs(bus, names, since=since, clock=Meanwhile()) == 1
        assert await bus.blobs().get(names[0]) == SHARED
        assert not await bus.blobs().exists(names[1])
        # And whoever has the same content later stores it, however sure it was that it is there.
        async with asyncio.timeout(10):
            while not await bus.blobs().exists(names[1]):
                await process.blobs().put(ALONE, now=now)
                await asyncio.sleep(0.02)


async def kept_record(bus: Bus, key: str, phase: Phase, **more: object) -> None:
    """As a sender keeps it."""
    at = datetime.now(UTC)
    record = SendRecord(key, f"{bus.subjects.out('shop')} 1", "o", phase, 1, f"{key}@x", at, at + timedelta(1))
    record = msgspec.structs.replace(record, account="shop", **more)
    await Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), SystemClock()).put(
        key, record, 0
    )


async def waiting_copy(bus: Bus, key: str, content: bytes, *, in_outbox: bool) -> None:
    """As sent.py queues one."""
    headers, outbox = {KEY_HEADER: key}, Outbox(bus.blobs(bus.subjects.outbox))
    if in_outbox:
        headers[OUTBOX_HEADER] = await outbox.put(Bundle(f"{SENT}{key}", content, {}), stored_at=datetime.now(UTC))
    await bus.publish(bus.subjects.sent_copies("shop"), b"" if in_outbox else content, headers)


async def test_copies_that_wait_and_what_ended_requests_left_go_and_what_is_to_be_sent_stays_and_is_said(
    bus: Bus,
) -> None:
    outbox = Outbox(bus.blobs(bus.subjects.outbox))
    hidden = base64.b64encode(f"write to {ADA}".encode())
    coded = b"Subject: x\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + hidden
    # Of requests that are over: one whose mail says it in base64, one that is known by its record, a stranger's.
    await kept_record(bus, "a1", Phase.FINAL)
    await waiting_copy(bus, "a1", coded, in_outbox=False)
    await kept_record(bus, "a2", Phase.FINAL, taken=[ADA, "bob@example.net"])
    await waiting_copy(bus, "a2", mail(1), in_outbox=True)
    await kept_record(bus, "a3", Phase.FINAL)
    await waiting_copy(bus, "a3", mail(2), in_outbox=True)
    # One that was sent to some, and one that waits as a whole; its text alone names the address.
    await kept_record(bus, "a4", Phase.WAITING, pending={"bob@example.net": "450"})
    await waiting_copy(bus, "a4", mail(3, sender=ADA), in_outbox=True)
    request = json.dumps({"to": [{"email": "bob@example.net"}], "text": f"ask\n{ADA}"}).encode()
    await kept_record(bus, "a5", Phase.HELD, held=["bob@example.net"])
    waits = await outbox.put(Bundle("a5", request, {}), stored_at=datetime.now(UTC))
    # What the end of a request, and a process that was killed, left there.
    await kept_record(bus, "a6", Phase.FINAL)
    await outbox.put(Bundle("a6", request, {}), stored_at=datetime.now(UTC))
    for account, why in (("shop", f"refused\n{ADA}"), ("shop", "refused")):
        await bus.publish(bus.subjects.account(account, "degraded"), json.dumps({"detail": why}).encode())
    assert not (await find(bus, wanted_address(ADA, "other"))).under_way
    found = await erased(bus, wanted_address(ADA, "shop"))
    counts = {name: count for name, count in found.counts.items() if count}
    assert counts == {"copies": 2, "left_behind": 2, "requests": 1, "statuses": 1}
    assert len(found.under_way) == 1, "both wait under the same source here"
    left = await everything(bus)
    assert hidden not in left
    assert left.count(ADA.encode()) == 2, "of the two that are to be sent"
    assert (await outbox.get(waits)).request == request
    assert await bus.pending(bus.subjects.stream_later, bus.subjects.sent_copies("shop")) == 2
    # Sent in the end, what they left goes too, and the command is done.
    for key in ("a4", "a5"):
        await bus.key_value(bus.subjects.sends).purge(key)
        await kept_record(bus, key, Phase.FINAL)
    assert not (await erased(bus, wanted_address(ADA, "*"))).under_way
    assert ADA.encode() not in await everything(bus)


async def test_a_request_whose_bytes_are_stored_and_whose_record_is_not_yet_stays(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(bus.blobs(bus.subjects.outbox))
    request = json.dumps({"to": [{"email": ADA}]}).encode()
    name = await outbox.put(Bundle("b1", request, {}), stored_at=datetime.now(UTC))
    assert (await erased(bus, wanted_address(ADA, "*"))).under_way == {name}
    assert (await outbox.get(name)).request == request
    # An hour later nobody will name it any more.
    monkeypatch.setattr(waiting, "YOUNG", timedelta(0))
    assert not (await erased(bus, wanted_address(ADA, "*"))).under_way
    assert ADA.encode() not in await everything(bus)


async def test_finished_requests_are_kept_without_the_address_and_none_is_sent_again(
    own_nats: NatsServer, mailbus: Callable[..., Mailbus], prefix: str, relay: ScriptedRelay
) -> None:
    account = with_relay({"id": "shop", "address": "shop@example.com"}, relay)
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:

        async def ask(id: str, state: str) -> None:
            body = {"id": id, "to": [{"email": ADA}, {"email": "bob@example.net"}], "text": "x"}
            statuses = await reader.count(f"{prefix}.status.shop.{state}", "STATUS")
            await reader.nc.jetstream().publish(f"{prefix}.out.shop", json.dumps(body).encode())
            async with asyncio.timeout(20):
                while await reader.count(f"{prefix}.status.shop.{state}", "STATUS") == statuses:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

        await ask("done", "sent")
        relay.script.rcpt[ADA] = ["450 4.2.0 later"]
        await ask("waits", "deferred")
        code, out, _ = await command(one, "erase", "address", ADA)
        assert code == 0
        assert "Nothing was erased" in out
        code, out, _ = await command(one, "erase", "address", ADA, "--account", "shop", "--yes")
        # What is not sent yet stays, and is said.
        assert code == 1
        assert "1  requests stay" in out
        audit = json.loads(out.splitlines()[-1])
        assert (audit["event"], audit["requests"], audit["account"]) == ("erased", 1, "shop")
        assert ADA not in out
        records = await (await reader.nc.jetstream().key_value(f"{prefix}-sends")).keys()
        kept = {}
        for key in records:
            entry = await (await reader.nc.jetstream().key_value(f"{prefix}-sends")).get(key)
            kept[json.loads(entry.value or b"{}")["id"]] = entry.value or b""
        assert ADA.encode() not in kept["done"]
        assert b"erased@erased.invalid" in kept["done"]
        assert ADA.encode() in kept["waits"]
        assert await reader.count(f"{prefix}.status.shop.*", "STATUS") == 1
        sent = len(relay.messages)
        await ask("done", "sent")
        assert len(relay.messages) == sent
    assert await one.stop() == 0
