"""`append` and `upload`: into a mailbox and into the store, as it is, once."""

import asyncio
import base64
import hashlib
import json
from datetime import UTC, datetime

import pytest

from service.bus import Bus
from service.bus.blobs import BlobStore
from service.contract import request_key
from tests.commands.conftest import Desk, code, desk, mail
from tests.servers.cyrus import Cyrus
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import until
from tests.servers.proxy import FaultProxy, Way

DRAFT = {
    "to": [{"email": "ada@customer.example", "name": "Ada"}],
    "bcc": [{"email": "hidden@example.com"}],
    "subject": "Grüße",
    "text": "Hallo\n",
}


async def uploaded(one: Desk, data: bytes) -> str:
    answer = await one.ask("upload", {"content": base64.b64encode(data).decode()})
    found: str = answer["blobId"]
    return found


async def test_a_blob_becomes_a_message_as_it_is(either: Desk) -> None:
    letter = mail("kept", id="kept@x", body="x" * 9000)
    request = {
        "mailbox": "Sent",
        "blobId": await uploaded(either, letter),
        "keywords": {"$seen": True, "project-x": True},
        "receivedAt": "2026-03-01T11:30:15+01:00",
    }
    id = (await either.ask("append", request))["id"]
    wanted = {"ids": [id], "properties": ["subject", "keywords", "receivedAt"], "raw": True}
    (email,) = (await either.ask("get", wanted))["list"]
    assert email["keywords"] == {"$seen": True, "project-x": True}
    assert email["receivedAt"] == "2026-03-01T10:30:15Z"
    assert await either.bus.blobs().get(email["blobId"]) == letter


async def test_a_request_becomes_a_draft_with_its_bcc(either: Desk) -> None:
    pdf = await uploaded(either, b"%PDF-")
    request = DRAFT | {"attachments": [{"blobId": pdf, "name": "a.pdf", "type": "application/pdf"}]}
    body = {"mailbox": "Sent", "request": request, "keywords": {"$draft": True}}
    id = (await either.ask("append", body))["id"]
    (email,) = (await either.ask("get", {"ids": [id], "fetchAllBodyValues": True}))["list"]
    assert email["subject"] == "Grüße"
    assert email["from"] == [{"name": None, "email": "support@example.com"}]
    assert email["bcc"] == [{"name": None, "email": "hidden@example.com"}]
    assert email["attachments"][0]["blobId"] == pdf
    assert email["keywords"] == {"$draft": True}
    unaddressed = await either.ask("append", {"mailbox": "Sent", "request": {"text": "later"}})
    assert unaddressed["id"] not in {None, id}


async def test_a_message_without_message_id_has_an_id_where_the_server_says_it(whole: Desk) -> None:
    blob = await uploaded(whole, b"Subject: bare\r\n\r\nx\r\n")
    assert await whole.subjects_of([(await whole.ask("append", {"mailbox": "INBOX", "blobId": blob}))["id"]]) == [
        "bare"
    ]


async def test_a_message_without_message_id_has_none_where_it_does_not(bare: Desk) -> None:
    blob = await uploaded(bare, b"Subject: bare\r\n\r\nx\r\n")
    assert await bare.ask("append", {"mailbox": "INBOX", "blobId": blob}) == {"id": None}


@pytest.mark.fault("G10")
async def test_a_message_without_message_id_whose_answer_is_lost_is_found_by_its_content(
    bus: Bus, whole_dovecot: Dovecot, prefix: str
) -> None:
    proxy = FaultProxy(whole_dovecot.host, whole_dovecot.imap)
    await proxy.start()

    def cut(_way: Way, chunk: bytes) -> bytes:
        if b"[APPENDUID " in chunk:
            proxy.cut()
        return chunk

    async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one:
        # As many octets, and something else.
        await one.append(b"Subject: bare\r\n\r\nno\r\n")
        body = {"mailbox": "INBOX", "blobId": await uploaded(one, b"Subject: bare\n\nit\n")}
        proxy.watch = cut
        assert (await one.refused("append", body, Nats_Msg_Id="a"))[0] == "504"
    await proxy.stop()
    async with desk(bus, whole_dovecot, prefix) as another:
        await another.append(b"Subject: bare\r\n\r\noh\r\n")
        there = await another.ids()
        for _ in range(2):
            assert await another.ask("append", body, Nats_Msg_Id="a") == {"id": there[1]}
        assert await another.ids() == there


@pytest.mark.fault("G10")
async def test_under_an_id_a_message_is_kept_once_also_by_another_process(either: Desk) -> None:
    body = {"mailbox": "INBOX", "request": DRAFT | {"id": "draft-7"}}
    first = await either.ask("append", body)
    # As a process started anew, which remembers nothing.
    assert await either.ask("append", body) == first
    other = await either.ask("append", {"mailbox": "INBOX", "request": DRAFT | {"id": "draft-8"}})
    assert other != first
    blob = await uploaded(either, mail("raw", id="raw@x", body="a\r\nb"))
    raw = {"mailbox": "INBOX", "blobId": blob}
    kept = await either.ask("append", raw, Nats_Msg_Id="r-1")
    assert await either.ask("append", raw, Nats_Msg_Id="r-2") == kept
    assert len(await either.ids()) == 3
    # Without an id it is what it says: another one.
    assert await either.ask("append", raw) != kept
    assert len(await either.ids()) == 4


async def test_a_line_end_without_cr_is_kept_as_the_server_keeps_it(bare: Desk) -> None:
    blob = await uploaded(bare, mail("raw", id="raw@x", body="a\nb"))
    raw = {"mailbox": "INBOX", "blobId": blob}
    kept = await bare.ask("append", raw, Nats_Msg_Id="r-1")
    assert kept["id"]
    assert await bare.ask("append", raw, Nats_Msg_Id="r-2") == kept
    assert len(await bare.ids()) == 1


async def test_a_server_that_takes_no_line_end_without_cr_is_quoted(bus: Bus, cyrus: Cyrus, prefix: str) -> None:
    async with desk(bus, cyrus, prefix) as one:
        blob = await uploaded(one, mail("raw", body="a\nb"))
        answered, problems = await one.refused("append", {"mailbox": "INBOX", "blobId": blob})
        assert (answered, await one.ids()) == ("400", [])
        assert "bare newlines" in problems[0]["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"mailbox": "INBOX"}, "blobId"),
        ({"mailbox": "INBOX", "blobId": f"202611-{'0' * 64}"}, "blobId"),
        ({"mailbox": "INBOX", "blobId": "x", "request": DRAFT}, "blobId"),
        ({"mailbox": "INBOX", "request": {"subject": "a\nb", "text": "x"}}, "request.subject"),
        ({"mailbox": "INBOX", "request": {"text": "x", "sendAt": "2030-01-01T00:00:00Z"}}, "request.sendAt"),
        ({"mailbox": "INBOX", "request": {"txt": "x"}}, "request.txt"),
        ({"mailbox": "INBOX", "request": {}}, "request.text"),
        ({"mailbox": "INBOX", "request": {"text": "x"}, "keywords": {"a b": True}}, "keywords[0]"),
        ({"mailbox": "INBOX", "request": {"text": "x"}, "keywords": {"$seen": False}}, "keywords[...]"),
        ({"mailbox": "INBOX", "request": {"text": "x"}, "receivedAt": "noon"}, "receivedAt"),
        ({"request": {"text": "x"}}, "mailbox"),
    ],
)
async def test_a_wrong_append_is_400_with_its_field(whole: Desk, body: dict[str, object], field: str) -> None:
    answered, problems = await whole.refused("append", body)
    assert (answered, problems[0]["field"]) == ("400", field)
    assert await whole.ids() == []


async def test_what_a_mailbox_cannot_keep_is_refused(whole: Desk) -> None:
    for data in (b"Subject: x\r\n\r\n\0", b"x" * 1_000_001):
        blob = await whole.bus.blobs().put(data, now=datetime.now(UTC))
        assert (await whole.refused("append", {"mailbox": "INBOX", "blobId": blob}))[0] == "400"
    assert (await whole.refused("append", {"mailbox": "nowhere", "request": {"text": "x"}}))[0] == "404"


@pytest.mark.fault("G11")
async def test_blobs_that_are_more_than_a_mail_has_are_not_read(whole: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.contract.requests.BLOBS_LIMIT_BYTES", 1000)
    large = await whole.bus.blobs().put(b"x" * 1_000_001, now=datetime.now(UTC))
    files = [await uploaded(whole, data * 300) for data in (b"a", b"b")]

    async def get(_blobs: BlobStore, _id: str) -> bytes:
        raise AssertionError("read all the same")

    monkeypatch.setattr(BlobStore, "get", get)
    answered, problems = await whole.refused("append", {"mailbox": "INBOX", "blobId": large})
    assert (answered, problems[0]["field"]) == ("400", "blobId")
    # One of them twice.
    attachments = [{"blobId": blob, "name": "a"} for blob in (*files, files[0], files[0])]
    request = {"text": "x", "attachments": attachments}
    answered, problems = await whole.refused("append", {"mailbox": "INBOX", "request": request})
    assert (answered, problems[0]["field"]) == ("400", "request.attachments")


@pytest.mark.fault("G11")
async def test_a_blob_is_read_once_there_is_room_for_it(whole: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    blob, free, get = await uploaded(whole, mail("one")), list[int | None](), BlobStore.get

    async def looked(blobs: BlobStore, id: str) -> bytes:
        free.append(whole.budget.take_now(whole.budget.limit))
        return await get(blobs, id)

    monkeypatch.setattr(BlobStore, "get", looked)
    await whole.ask("append", {"mailbox": "INBOX", "blobId": blob})
    assert free == [None]


async def test_who_waits_for_room_has_neither_the_connection_nor_room_for_more_than_one(
    whole: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = await uploaded(whole, mail("one"))
    body = {"mailbox": "INBOX", "blobId": blob}
    taken = await whole.budget.take(whole.budget.limit)
    async with asyncio.TaskGroup() as group:
        appended = [group.create_task(whole.ask("append", body)) for _ in range(3)]
        await until(lambda: len(whole.budget._waiting) > 0, what="an append that waits for room")
        # Others go on, and no more than one of them will have room while it waits for the connection.
        assert (await whole.ask("mailboxes"))["list"]
        assert await whole.ids() == []
        assert len(whole.budget._waiting) == 1
        monkeypatch.setattr("service.commands.account.ALONE_LIMIT_S", 0.0)
        answered, problems = await whole.refused("append", body)
        assert (answered, "ask again later" in problems[0]["message"]) == ("503", True)
        whole.budget.give(taken)
    assert len({one.result()["id"] for one in appended}) == 3


async def test_who_has_room_and_waits_for_the_connection_waits_for_nobody_who_has_it_and_waits_for_room(
    whole: Desk,
) -> None:
    await whole.append(mail("one"))
    ids, blob = await whole.ids(), await uploaded(whole, mail("two"))
    taken = await whole.budget.take(whole.budget.limit)
    async with asyncio.TaskGroup() as group:
        got = group.create_task(whole.ask("get", {"ids": ids, "properties": ["textBody"]}))
        await until(lambda: len(whole.budget._waiting) == 1, what="a get that waits for room")
        appended = group.create_task(whole.ask("append", {"mailbox": "INBOX", "blobId": blob}))
        # It has come as far as it does: another one that is refused came after it.
        await whole.refused("append", {"mailbox": "INBOX", "blobId": "none"})
        assert len(whole.budget._waiting) == 1
        whole.budget.give(taken)
    assert ([email["id"] for email in got.result()["list"]], list(appended.result())) == (ids, ["id"])


@pytest.mark.fault("G10")
async def test_a_message_with_a_message_id_is_claimed_before_it_is_appended(
    bus: Bus, whole_dovecot: Dovecot, prefix: str
) -> None:
    proxy, asked = FaultProxy(whole_dovecot.host, whole_dovecot.imap), asyncio.Event()
    await proxy.start()

    def watch(way: Way, chunk: bytes) -> bytes:
        if way is Way.TO_SERVER and b"APPEND" in chunk:
            asked.set()
            return b""
        return chunk

    proxy.watch = watch
    body = {"mailbox": "INBOX", "request": DRAFT}
    async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one, asyncio.TaskGroup() as group:
        refused = group.create_task(one.refused("append", body, Nats_Msg_Id="a"))
        await asked.wait()
        key = f"support.cmd-{request_key('support', 'append a')}"
        record = await bus.key_value(bus.subjects.sends).get(key)
        assert record is not None
        assert json.loads(record.value)["writer"] == "here/1"
        proxy.cut()
        assert (await refused)[0] == "504"
    await proxy.stop()


# -- upload -------------------------------------------------------------------------------------------------------


async def test_an_upload_is_a_blob_and_the_same_again_is_the_same(whole: Desk) -> None:
    data = b"%PDF-1.7 an invoice"
    body = {"name": "bill.pdf", "type": "application/pdf", "content": base64.b64encode(data).decode()}
    answer = await whole.ask("upload", body)
    assert answer["blobId"].endswith(hashlib.sha256(data).hexdigest())
    assert {**answer, "blobId": ""} == {"blobId": "", "name": "bill.pdf", "type": "application/pdf", "size": len(data)}
    assert await whole.ask("upload", body) == answer
    assert await whole.bus.blobs().get(answer["blobId"]) == data


@pytest.mark.fault("G11")
async def test_an_upload_has_a_limit_and_a_form(whole: Desk) -> None:
    _, wrong = await whole.refused("upload", {"content": "no base64"})
    assert wrong == [{"field": "content", "message": "Invalid base64 encoded string"}]
    assert (await whole.refused("upload", {}))[1][0]["field"] == "content"
    whole.account = "nobody"
    assert code(await whole.message("upload", {"content": ""})) == "404"


async def test_an_account_that_only_sends_uploads_and_has_no_mailboxes(whole: Desk) -> None:
    whole.account = "sender"
    assert (await whole.ask("upload", {"content": ""}))["size"] == 0
    answer = await whole.message("mailboxes")
    assert code(answer) == "404"
    assert json.loads(answer.data)["problems"][0]["field"] == "account"
