"""`get`: what is asked for is read and no more, and it is what an event would say."""

import asyncio
import importlib.util
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.bus import BlobStore, Bus, ServiceError
from service.commands.get import wanted_of
from service.contract import Blob, Extra, GetRequest, email_id
from service.imap import writing
from service.parsing import Page, Raw, Read, make
from tests.commands.conftest import Desk, desk, mail
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.proxy import FaultProxy, Way

PIECE = 64 * 1024
LETTER = (
    b"From: =?utf-8?q?J=C3=B6rg?= <joerg@customer.example>\r\n"
    b"Subject: bill\r\n"
    b"Message-ID: <bill-1@customer.example>\r\n"
    b"Date: Tue, 24 Nov 2026 12:00:00 +0100\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nSee below.\r\n"
    b'--b\r\nContent-Type: application/pdf; name="bill.pdf"\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0=\r\n'
    b"--b--\r\n"
)


async def flags_of(one: Desk) -> bytes:
    def work() -> bytes:
        with one.server.client(one.user) as client:
            client.select("INBOX", readonly=True)
            return b"".join(part for part in client.fetch("1:*", "(FLAGS)")[1] if isinstance(part, bytes))

    return await asyncio.to_thread(work)


async def test_an_email_is_what_its_event_says(either: Desk) -> None:
    await either.append(LETTER)
    (id,) = await either.ids()
    everything = ["headers", "bodyStructure", "bodyValues", "textBody", "htmlBody", "attachments", "preview"]
    everything += [
        "hasAttachment",
        "mailbus",
        "subject",
        "from",
        "messageId",
        "sentAt",
        "size",
        "receivedAt",
        "keywords",
    ]
    answer = await either.ask("get", {"ids": [id], "properties": everything, "fetchAllBodyValues": True})
    (email,) = answer["list"]
    received = datetime.fromisoformat(email["receivedAt"])
    page = Page("", "INBOX", "", 1, 256 * 1024, 1024 * 1024, Raw.PROBLEM, datetime.now(UTC))
    # Servers with OBJECTID name the mail.
    named = email["mailbus"].get("emailId", "")
    event = json.loads(make(page, Read(1, len(LETTER), {}, received, LETTER, True, email_id=named)).payload)
    assert email == {name: event[name] for name in everything} | {"id": id}
    (attached,) = email["attachments"]
    assert await either.bus.blobs().get(attached["blobId"]) == b"%PDF-"
    assert b"Seen" not in await flags_of(either)


async def test_values_come_where_they_are_asked_for(whole: Desk) -> None:
    await whole.append(LETTER)
    (id,) = await whole.ids()
    (plain,) = (await whole.ask("get", {"ids": [id]}))["list"]
    assert plain["bodyValues"] == {}
    assert "headers" not in plain
    assert "blobId" not in plain
    (full,) = (await whole.ask("get", {"ids": [id], "fetchAllBodyValues": True}))["list"]
    assert full["bodyValues"]["1"]["value"] == "See below."


@pytest.mark.parametrize(
    ("properties", "section"),
    [
        (["keywords", "size", "receivedAt", "mailboxIds"], None),
        (["subject", "from"], b"BODY.PEEK[HEADER.FIELDS (From Subject)]<0.524288>"),
        (["subject", "headers"], b"BODY.PEEK[HEADER]<0.524288>"),
        (
            ["subject", "header:date:asDate", "header:X-None"],
            b"BODY.PEEK[HEADER.FIELDS (Date Subject X-None)]<0.524288>",
        ),
        (["subject", "header:a]b"], b"BODY.PEEK[HEADER]<0.524288>"),
        (["subject", "preview"], b"BODY.PEEK[]"),
    ],
)
async def test_no_more_is_read_than_the_properties_need(
    bus: Bus, whole_dovecot: Dovecot, prefix: str, properties: list[str], section: bytes | None
) -> None:
    proxy = FaultProxy(whole_dovecot.host, whole_dovecot.imap)
    await proxy.start()
    proxy.recording = True
    try:
        async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one:
            await one.append(LETTER)
            (id,) = await one.ids()
            (email,) = (await one.ask("get", {"ids": [id], "properties": properties}))["list"]
            sent = bytes(proxy.seen[Way.TO_SERVER])
            said = bytes(proxy.seen[Way.TO_CLIENT])
    finally:
        await proxy.stop()
    assert set(email) == {*properties, "id"}
    if "subject" in properties:
        assert email["subject"] == "bill"
    assert (
        email.get("header:date:asDate", email.get("sentAt", "2026-11-24T12:00:00+01:00")) == "2026-11-24T12:00:00+01:00"
    )
    assert email.get("header:X-None") is None
    assert (section in sent) if section else b"BODY" not in sent
    assert (b"See below" in said) == (section == b"BODY.PEEK[]")
    assert b"SELECT" not in sent
    assert b"EXAMINE" in sent


async def test_text_to_work_with_is_made_where_it_is_asked_for(whole: Desk) -> None:
    await whole.append(LETTER.replace(b"See below.", b"See below.\r\n\r\nOn Mon at 10:00, Ada wrote:\r\n> Bill?"))
    (id,) = await whole.ids()
    plain = await whole.ask("get", {"ids": [id], "properties": ["mailbus"]})
    assert "reply" not in plain["list"][0]["mailbus"]
    asked = await whole.ask("get", {"ids": [id], "properties": ["mailbus"], "extras": ["reply", "text"]})
    assert asked["list"][0]["mailbus"] == {"kind": "message", "reply": "See below."}


async def test_raw_is_the_message_byte_for_byte(either: Desk) -> None:
    await either.append(LETTER)
    (id,) = await either.ids()
    (email,) = (await either.ask("get", {"ids": [id], "properties": ["subject"], "raw": True}))["list"]
    assert set(email) == {"id", "subject", "blobId"}
    assert await either.bus.blobs().get(email["blobId"]) == LETTER
    assert b"Seen" not in await flags_of(either)


@pytest.mark.parametrize("size", [0, PIECE, 2 * PIECE + 7])
async def test_raw_bytes_go_into_their_blob_in_pieces_where_nothing_else_is_read(
    bus: Bus, whole_dovecot: Dovecot, prefix: str, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(writing, "PIECE_BYTES", PIECE)
    head = mail("large", body="")
    letter = head + b"y" * max(0, size - len(head) - 2) + b"\r\n"
    proxy = FaultProxy(whole_dovecot.host, whole_dovecot.imap)
    await proxy.start()
    asked: list[bytes] = []

    def keep(way: Way, chunk: bytes) -> bytes:
        asked.extend(re.findall(rb"BODY.PEEK\[[^\r]*", chunk) if way is Way.TO_SERVER else [])
        return chunk

    proxy.watch = keep
    async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one:
        await one.append(letter)
        (id,) = await one.ids()
        (email,) = (await one.ask("get", {"ids": [id], "properties": ["size"], "raw": True}))["list"]
        assert email == {"id": id, "size": len(letter), "blobId": email["blobId"]}
        assert await bus.blobs().get(email["blobId"]) == letter
        (again,) = (await one.ask("get", {"ids": [id], "properties": ["subject"], "raw": True}))["list"]
        assert again == {"id": id, "subject": "large", "blobId": email["blobId"]}
    pieces = len(letter) // PIECE + 1
    assert sum(b"[]<" in one for one in asked) == 2 * pieces
    await proxy.stop()


async def test_what_was_read_counts_as_memory_until_its_blobs_are_stored(
    bus: Bus, whole_dovecot: Dovecot, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, go, put_all = asyncio.Event(), asyncio.Event(), BlobStore.put_all

    async def slowly(store: BlobStore, blobs: Sequence[Blob], *, now: datetime) -> None:
        storing.set()
        await go.wait()
        await put_all(store, blobs, now=now)

    monkeypatch.setattr(BlobStore, "put_all", slowly)
    async with desk(bus, whole_dovecot, prefix) as one:
        await one.append(LETTER)
        (id,) = await one.ids()
        asking = asyncio.create_task(one.ask("get", {"ids": [id], "raw": True}))
        await asyncio.wait_for(storing.wait(), 10)
        assert one.budget.take_now(one.budget.limit) is None
        go.set()
        (email,) = (await asking)["list"]
        assert await bus.blobs().get(email["blobId"]) == LETTER
        # And no longer.
        assert one.budget.take_now(one.budget.limit) == one.budget.limit


async def test_a_message_that_is_there_and_is_not_given_now_is_503_and_not_missing(
    bus: Bus, imap_stub: ImapStub, prefix: str
) -> None:
    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        if "BODY.PEEK[]<" not in arguments:
            return False
        await connection.send(f"{tag} NO [SERVERBUG] try again\r\n")
        return True

    imap_stub.messages, imap_stub.hooks["UID FETCH"] = {1: mail("one")}, fetch
    async with desk(bus, Dovecot(Path()), prefix, port=imap_stub.port) as one:
        id = email_id("INBOX", 7, 1)
        asked = {"ids": [id], "properties": ["size"], "raw": True}
        answered, problems = await one.refused("get", asked)
        assert (answered, problems[0]["field"]) == ("503", f"ids.{id}")
        assert "ask again later" in problems[0]["message"]


async def test_a_message_ends_where_nil_stands_for_the_piece_beyond_it(
    bus: Bus, imap_stub: ImapStub, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PIECE_BYTES", PIECE)
    letter = mail("x", body="").ljust(PIECE, b"y")

    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        if "BODY.PEEK[]<" not in arguments:
            return False
        if "[]<0." in arguments:
            await connection.send(b"* 1 FETCH (UID 1 BODY[]<0> {%d}\r\n%b)\r\n" % (PIECE, letter))
        else:
            await connection.send(f"* 1 FETCH (UID 1 BODY[]<{PIECE}> NIL)\r\n")
        await connection.send(f"{tag} OK done\r\n")
        return True

    imap_stub.messages, imap_stub.hooks["UID FETCH"] = {1: letter}, fetch
    async with desk(bus, Dovecot(Path()), prefix, port=imap_stub.port) as one:
        answer = await one.ask("get", {"ids": [email_id("INBOX", 7, 1)], "properties": ["size"], "raw": True})
        assert await bus.blobs().get(answer["list"][0]["blobId"]) == letter


async def test_a_message_over_the_limit_shows_its_header_and_says_so(whole: Desk) -> None:
    await whole.append(mail("huge", body="x" * 1_100_000))
    (id,) = await whole.ids()
    (email,) = (await whole.ask("get", {"ids": [id], "raw": True}))["list"]
    assert email["subject"] == "huge"
    assert email["mailbus"]["problem"]["type"] == "too-large"
    assert "blobId" not in email


async def test_an_answer_that_is_full_says_that_more_follows(whole: Desk) -> None:
    room = whole.bus.max_payload // 2
    await whole.append(*[mail(f"m{n}", body="word " * 30000) for n in range(5)])
    ids = await whole.ids()
    left, subjects, answers = ids, list[str](), 0
    while left:
        message = await whole.message(
            "get", {"ids": left, "properties": ["subject", "bodyValues"], "fetchAllBodyValues": True}
        )
        answer = json.loads(message.data)
        assert len(message.data) <= room
        subjects += [one["subject"] for one in answer["list"]]
        assert answer["more"] == (len(answer["list"]) < len(left))
        left = left[len(answer["list"]) :]
        answers += 1
    assert subjects == [f"m{n}" for n in range(5)]
    assert answers == 2


@pytest.mark.fault("G11")
async def test_ids_that_are_none_are_not_found(whole: Desk) -> None:
    await whole.append(mail("one"))
    (id,) = await whole.ids()
    uidvalidity = await uidvalidity_of(whole)
    gone, elsewhere = email_id("INBOX", uidvalidity, 99), email_id("nowhere", uidvalidity, 1)
    zero = email_id("INBOX", uidvalidity, 0)
    strange = ["", "x", "i" + "A" * 22, "i*", "ü", "a" * 255, "mg-y1Ib8yD2c"]
    answer = await whole.ask("get", {"ids": [id, gone, elsewhere, zero, *strange, id], "properties": ["subject"]})
    assert [one["subject"] for one in answer["list"]] == ["one"]
    assert sorted(answer["notFound"]) == sorted([gone, elsewhere, zero, *strange])


async def uidvalidity_of(one: Desk, mailbox: str = "INBOX") -> int:
    def work() -> int:
        with one.server.client(one.user) as client:
            said: Any = client.status(mailbox, "(UIDVALIDITY)")[1][0]
            return int(said.split(b"UIDVALIDITY ")[1].rstrip(b")"))

    return await asyncio.to_thread(work)


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("get", {}),
        ("flags", {"add": ["$seen"]}),
        ("copy", {"mailbox": "Sent"}),
        ("move", {"mailbox": "Sent"}),
        ("delete", {}),
        ("delete", {"permanently": True}),
    ],
)
async def test_an_id_of_an_old_epoch_is_409_and_nothing_is_done(whole: Desk, verb: str, more: dict[str, Any]) -> None:
    await whole.append(mail("one"))
    await whole.append(mail("two"), mailbox="Sent")
    (good,), (sent,) = await whole.ids(), await whole.ids("Sent")
    stale = email_id("INBOX", await uidvalidity_of(whole) - 1, 1)
    for ids in ([stale], [sent, stale, good]):
        answered, problems = await whole.refused(verb, {"ids": ids} | more)
        assert answered == "409"
        assert [problem["field"] for problem in problems] == [f"ids.{stale}"]
    assert await whole.ids() == [good]
    assert await whole.ids("Sent") == [sent]
    assert await whole.keywords(sent) == {}


async def test_a_property_that_there_is_not_is_named(whole: Desk) -> None:
    answered, problems = await whole.refused("get", {"ids": [], "properties": ["subjekt"]})
    assert (answered, problems[0]["field"]) == ("400", "properties")
    assert "subjekt" in problems[0]["message"]
    assert "subject" in problems[0]["message"]
    answered, problems = await whole.refused("get", {"ids": [], "properties": ["header:Subject:asDate"]})
    assert (answered, problems[0]["field"]) == ("400", "properties")
    assert "asText" in problems[0]["message"]
    assert (await whole.refused("get", {"ids": ["x"] * 501}))[1][0]["field"] == "ids"
    assert (await whole.refused("get", {"ids": ["x" * 256]}))[0] == "400"


@pytest.mark.parametrize("verb", ["get", "flags"])
@pytest.mark.parametrize("before", ["searched", "the same", "elsewhere"])
async def test_once_a_mailbox_was_made_again_old_ids_are_409_and_new_ones_work(
    either: Desk, verb: str, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "OPEN_FRESH_S", 0.0)
    more = {} if verb == "get" else {"add": ["$seen"]}
    await asyncio.to_thread(create, either, "Box")
    await either.append(mail("old"), mailbox="Box")
    (old,) = await either.ids("Box")
    if before == "the same":
        await either.ask(verb, {"ids": [old]} | more)
    if before == "elsewhere":
        await either.ids("INBOX")
    await asyncio.to_thread(either.server.make_again, either.user, "Box")
    answered, problems = await either.refused(verb, {"ids": [old]} | more)
    assert (answered, [one["field"] for one in problems]) == ("409", [f"ids.{old}"])
    await either.append(mail("new"), mailbox="Box")
    (new,) = await either.ids("Box")
    await either.ask(verb, {"ids": [new]} | more)
    assert await either.subjects_of([new]) == ["new"]
    assert (await either.refused(verb, {"ids": [old]} | more))[0] == "409"


async def test_a_new_id_works_on_a_connection_that_has_the_mailbox_of_before_open(
    either: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "OPEN_FRESH_S", 60.0)
    await asyncio.to_thread(create, either, "Box")
    await either.append(mail("old"), mailbox="Box")
    assert len(await either.ids("Box")) == 1
    await asyncio.to_thread(either.server.make_again, either.user, "Box")
    await either.append(mail("new"), mailbox="Box")
    new = email_id("Box", await uidvalidity_of(either, "Box"), 1)
    assert await either.subjects_of([new]) == ["new"]


def create(one: Desk, mailbox: str) -> None:
    with one.server.client(one.user) as client:
        client.create(mailbox)


def test_a_language_that_no_library_tells_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ServiceError) as refused:
        wanted_of(GetRequest(["x"], extras=[Extra.LANGUAGE]))
    assert refused.value.code == 400
