"""A mailbox on real Dovecot becomes events on a real NATS, each message once."""

import asyncio
import hashlib
from datetime import UTC, datetime

import pytest

from service.bus import Bus
from service.contract import mailbox_id
from tests.ingest.harness import Box, following
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import ImapStub
from tests.servers.mailbus import BusReader, until


def mail(number: int, body: str = "body") -> bytes:
    return f"From: A <a@example.org>\r\nSubject: mail {number}\r\n\r\n{body}\r\n".encode()


async def watching(box: Box) -> None:
    await until(lambda: box.status.state == "watching", what=f"{box.states}")


async def test_all_existing_mail_is_announced_in_order_after_a_reset(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await dovecot.append(prefix, [mail(n) for n in range(1, 6)])
    async with following(bus, Box(dovecot.imap, prefix)):
        await reader.wait_received(5)
    events = await reader.events()
    assert [event.kind for event in events] == ["reset"] + ["received"] * 5
    assert [event.body["subject"] for event in events[1:]] == [f"mail {n}" for n in range(1, 6)]
    assert events[0].body["reason"] == "start"


async def test_an_event_is_a_cloud_event_with_a_jmap_email(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await dovecot.append(prefix, [mail(1, "hello there")])
    async with following(bus, Box(dovecot.imap, prefix)):
        (event,) = await reader.wait_received(1)
    assert event.subject == f"{prefix}.in.box.INBOX.received"
    assert event.headers["ce-type"] == "mailbus.received"
    assert event.headers["ce-source"] == f"/{prefix}/box/INBOX"
    assert event.headers["ce-subject"] == event.body["id"]
    assert event.headers["Mail-Kind"] == "message"
    assert event.body["mailboxIds"] == {mailbox_id("INBOX"): True}
    assert event.body["keywords"] == {}
    assert event.body["from"] == [{"name": "A", "email": "a@example.org"}]
    assert event.body["size"] == len(mail(1, "hello there"))
    assert next(iter(event.body["bodyValues"].values()))["value"] == "hello there\n"


@pytest.mark.fault("C08")
async def test_no_identity_hangs_on_a_header(dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str) -> None:
    same = b"Message-ID: <same@example.org>\r\n" + mail(1)
    doubled = b"Message-ID: <other@example.org>\r\n" + same
    nothing = b"\r\nno header at all\r\n"
    endless = b"Message-ID: <" + b"x" * 65_536 + b"@example.org>\r\n" + mail(1)
    await dovecot.append(prefix, [same, same, doubled, nothing, nothing, endless])
    async with following(bus, Box(dovecot.imap, prefix)):
        events = await reader.wait_received(6)
    assert len({event.headers["ce-id"] for event in events}) == 6
    assert len({event.body["id"] for event in events}) == 6
    assert [event.body["messageId"] for event in events] == [["same@example.org"]] * 3 + [None] * 3


async def test_initial_new_announces_what_comes_from_now_on(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await dovecot.append(prefix, [mail(1), mail(2)])
    box = Box(dovecot.imap, prefix, initial="new")
    async with following(bus, box):
        await watching(box)
        await dovecot.append(prefix, [mail(3)])
        (event,) = await reader.wait_received(1)
    assert event.body["subject"] == "mail 3"


async def test_a_mailbox_with_nothing_left_to_announce_is_behind_nothing(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await dovecot.append(prefix, [mail(1), mail(2)])
    for _ in range(2):  # at first sight, and after a restart
        box = Box(dovecot.imap, prefix, initial="new")
        async with following(bus, box):
            await watching(box)
            assert (box.status.last_uid, box.status.top_uid) == (2, 2)


async def test_initial_since_announces_what_arrived_from_that_moment_on(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    with dovecot.client(prefix) as client:
        for number, date in enumerate(["01-Oct-2026 10:00:00", "01-Nov-2026 09:00:00", "01-Nov-2026 11:00:00"], 1):
            client.append("INBOX", "", f'"{date} +0000"', mail(number))
    box = Box(dovecot.imap, prefix, initial=datetime(2026, 11, 1, 10, tzinfo=UTC))
    async with following(bus, box):
        (event,) = await reader.wait_received(1)
        await watching(box)
        await dovecot.append(prefix, [mail(4)])
        await reader.wait_received(2)
    assert event.body["subject"] == "mail 3"


async def test_stopped_after_the_first_connect_the_starting_line_holds(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    box = Box(dovecot.imap, prefix, initial="new")
    async with following(bus, box):
        await watching(box)
    await dovecot.append(prefix, [mail(1), mail(2), mail(3)])
    async with following(bus, Box(dovecot.imap, prefix, initial="new")):
        events = await reader.wait_received(3)
    assert [event.body["subject"] for event in events] == ["mail 1", "mail 2", "mail 3"]


@pytest.mark.fault("A03")
async def test_mail_that_arrives_at_any_moment_of_the_idle_cycle_is_announced(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    box = Box(dovecot.imap, prefix, idle_s=0.02)
    async with following(bus, box):
        for number in range(1, 41):
            await dovecot.append(prefix, [mail(number)])
        events = await reader.wait_received(40)
    assert [event.body["subject"] for event in events] == [f"mail {n}" for n in range(1, 41)]


@pytest.mark.fault("A03")
async def test_once_what_came_is_announced_it_is_waited_for_more(
    imap_stub: ImapStub, bus: Bus, reader: BusReader
) -> None:
    def idles() -> bool:
        return any(connection.idling for connection in imap_stub.connections)

    async with following(bus, Box(imap_stub.port, idle_s=3600.0)):
        for number in range(1, 4):
            # What was looked at is no news: it would be looked at again and again.
            await until(idles, limit_s=10.0, what=f"IDLE before mail {number}")
            await imap_stub.deliver(number, mail(number))
            await reader.wait_received(number)
        await until(idles, limit_s=10.0, what="IDLE behind all mail")


@pytest.mark.fault("A04")
async def test_looking_again_without_new_mail_announces_nothing(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await dovecot.append(prefix, [mail(1)])
    for _ in range(3):
        box = Box(dovecot.imap, prefix, idle_s=0.02)
        async with following(bus, box):
            await watching(box)
            await asyncio.sleep(0.1)
    assert len(await reader.received()) == 1


@pytest.mark.fault("D16")
async def test_reading_changes_nothing_on_the_server(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await dovecot.append(prefix, [mail(1)])
    async with following(bus, Box(dovecot.imap, prefix)):
        await reader.wait_received(1)
    with dovecot.client(prefix) as client:
        client.select("INBOX", readonly=True)
        _, data = client.fetch("1", "(FLAGS)")
    assert b"Seen" not in data[0]


async def test_an_attachment_is_a_blob_that_every_client_can_read(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    from email.message import EmailMessage

    content = bytes(range(256)) * 2000
    message = EmailMessage()
    message["Subject"] = "with a file"
    message.set_content("see the file")
    message.add_attachment(content, maintype="application", subtype="pdf", filename="b.pdf")
    await dovecot.append(prefix, [message.as_bytes()])
    async with following(bus, Box(dovecot.imap, prefix)):
        (event,) = await reader.wait_received(1)
    (attachment,) = event.body["attachments"]
    assert attachment["blobId"].endswith(hashlib.sha256(content).hexdigest())
    assert (attachment["name"], attachment["type"], attachment["size"]) == ("b.pdf", "application/pdf", len(content))
    store = await reader.nc.jetstream().object_store(f"{prefix}-blobs")
    assert (await store.get(attachment["blobId"])).data == content


async def test_a_mailbox_with_any_name_is_followed(dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str) -> None:
    name = "Entwürfe & 50%"
    with dovecot.client(prefix) as client:
        client.create('"Entw&APw-rfe &- 50%"')
    await dovecot.append(prefix, [mail(1)], mailbox='"Entw&APw-rfe &- 50%"')
    async with following(bus, Box(dovecot.imap, prefix, mailbox=name)):
        (event,) = await reader.wait_received(1)
    assert event.subject == f"{prefix}.in.box.Entwürfe%20&%2050%25.received"


@pytest.mark.fault("A20")
async def test_a_long_mailbox_is_read_in_pages_while_new_mail_comes(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await dovecot.append(prefix, [mail(n) for n in range(1, 1501)])
    box = Box(dovecot.imap, prefix)
    async with following(bus, box):
        await reader.wait_received(1)
        await dovecot.append(prefix, [mail(1501)])
        events = await reader.wait_received(1501)
    assert [event.body["subject"] for event in events] == [f"mail {n}" for n in range(1, 1502)]


@pytest.mark.fault("A20")
async def test_back_after_days_mail_is_announced_whatever_its_date_says(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    since = datetime(2026, 11, 1, 10, tzinfo=UTC)
    await dovecot.append(prefix, [mail(1)])
    box = Box(dovecot.imap, prefix, initial=since)
    async with following(bus, box):
        await watching(box)
        await reader.wait_received(1)
    with dovecot.client(prefix) as client:
        for number, date in enumerate(["20-Nov-2026 10:00:00", "01-Oct-2026 10:00:00", "01-Nov-1999 10:00:00"], 2):
            client.append("INBOX", "", f'"{date} +0000"', mail(number))
    async with following(bus, Box(dovecot.imap, prefix, initial=since)):
        events = await reader.wait_received(4)
    assert [event.body["subject"] for event in events] == [f"mail {n}" for n in range(1, 5)]


async def test_a_message_over_the_limit_is_announced_by_its_header(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await dovecot.append(prefix, [mail(1, "x" * 200_000), mail(2)])
    async with following(bus, Box(dovecot.imap, prefix, message_limit=100_000)):
        events = await reader.wait_received(2)
    assert events[0].body["subject"] == "mail 1"
    assert events[0].body["mailbus"]["problem"]["type"] == "too-large"
    assert events[0].body["size"] > 200_000
    assert events[1].body["subject"] == "mail 2"


async def test_a_body_over_the_inline_limit_is_a_blob(
    dovecot: Dovecot, bus: Bus, reader: BusReader, prefix: str
) -> None:
    await dovecot.append(prefix, [mail(1, "long line\r\n" * 30_000)])
    async with following(bus, Box(dovecot.imap, prefix, inline_limit=100_000)):
        (event,) = await reader.wait_received(1)
    (part,) = event.body["textBody"]
    assert part["blobId"]
    assert event.body["bodyValues"][part["partId"]]["isTruncated"] is True
