"""Commands of a running process: by the command line, beside what it announces, and within what NATS permits."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import Mailbus, command, imap_account, reading, settings_for
from tests.servers.nats import NatsServer
from tests.servers.nats_documented import DocumentedNats

Maker = Callable[..., Mailbus]
LETTER = b"From: ada@customer.example\r\nSubject: hello\r\nMessage-ID: <1@customer.example>\r\n\r\nGood morning.\r\n"


HTML_LETTER = (
    b"From: ada@customer.example\r\nSubject: Re: bill\r\nContent-Type: text/html\r\n\r\n"
    b"<p>Please send me the bill again.</p><script>alert(1)</script><p>On Mon at 10:00, Bob wrote:</p>"
    b"<blockquote>Hier ist die Rechnung.</blockquote>\r\n"
)


async def cmd(one: Mailbus, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    """`mailbus cmd box …`, which must succeed."""
    code, out, err = await command(one, "cmd", "box", verb, "-", stdin=json.dumps(body))
    assert code == 0, out + err
    found: dict[str, Any] = json.loads(out)
    return found


async def test_what_is_announced_can_be_asked_for_and_announcing_goes_on(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix)))
    one.start()
    await one.started()
    await dovecot.append(prefix, [LETTER])
    async with reading(own_nats.url, prefix) as reader:
        (event,) = await reader.wait_received(1)
        id = event.body["id"]
        assert (await cmd(one, "search", {"mailbox": "INBOX"}))["ids"] == [id]
        answer = await cmd(one, "get", {"ids": [id], "properties": list(event.body), "fetchAllBodyValues": True})
        assert answer["list"] == [event.body]
        assert (await cmd(one, "flags", {"ids": [id], "add": ["$seen"]}))["updated"] == [id]
        copied = await cmd(one, "append", {"mailbox": "INBOX", "request": {"subject": "note", "text": "to self"}})
        # What a command puts into a mailbox that is followed is announced, under the id of the answer.
        found = await reader.wait_received(2)
        assert [event.body["id"] for event in found] == [id, copied["id"]]
        assert (await cmd(one, "delete", {"ids": [id], "permanently": True}))["destroyed"] == [id]
        await dovecot.append(prefix, [LETTER])
        await reader.wait_received(3)
        states = [event.body["state"] for event in await reader.events("STATUS")]
    # Commands had a connection of their own: the one that follows was never given up.
    assert states == ["connected"]
    code, out, _ = await command(one, "cmd", "box", "search", '{"mailbox": "INBOX", "fitler": {}}')
    assert code == 1
    assert json.loads(out)["problems"][0]["field"] == "fitler"
    code, _, err = await command(one, "cmd", "box", "explode")
    assert code == 2
    assert "search" in err
    assert await one.stop() == 0


async def test_an_event_has_the_texts_that_settings_ask_for_and_get_gives_the_same(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    account = imap_account(dovecot, prefix, extras=["text", "reply", "html", "language"])
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    await dovecot.append(prefix, [HTML_LETTER])
    async with reading(own_nats.url, prefix) as reader:
        (event,) = await reader.wait_received(1)
    found = event.body["mailbus"]
    assert found["text"].startswith("Please send me the bill again.\n\nOn Mon at 10:00, Bob wrote:\n\n> Hier")
    assert found["reply"] == "Please send me the bill again."
    assert found["html"].startswith("<p>Please send me the bill again.</p><p>On Mon")
    assert found["language"] == "en"
    asked = {"ids": [event.body["id"]], "properties": ["mailbus"]}
    assert (await cmd(one, "get", asked))["list"][0]["mailbus"] == found
    (plain,) = (await cmd(one, "get", asked | {"extras": ["reply"]}))["list"]
    assert plain["mailbus"].keys() & {"text", "reply", "html", "language"} == {"reply"}
    assert await one.stop() == 0


# -- permissions: what docs/operations.md says, on a server that runs with it ---------------------------------------


READING = {"mailboxes": {}, "search": {"mailbox": "INBOX"}, "get": {"ids": []}}
WRITING = {
    "flags": {"ids": [], "add": ["$seen"]},
    "copy": {"ids": [], "mailbox": "INBOX"},
    "move": {"ids": [], "mailbox": "INBOX"},
    "delete": {"ids": []},
    "append": {"mailbox": "INBOX", "request": {"text": "x"}},
    "upload": {"content": ""},
    "resync": {"mailbox": None, "all": True},
}


async def asked(nc: Client, subject: str, payload: bytes) -> Msg:
    """The answer, once the process that has just started listens."""
    for _ in range(100):
        try:
            return await nc.request(subject, payload, timeout=20)
        except nats.errors.NoRespondersError:
            await asyncio.sleep(0.05)
    pytest.fail(f"nobody answers to {subject}")


@pytest.mark.parametrize(
    ("user", "allowed"),
    [
        ("finder", {"search": READING["search"]}),
        ("auditor", READING),
        ("desk", READING | WRITING),
    ],
)
@pytest.mark.fault("G08")
async def test_a_role_may_ask_what_the_documents_permit_and_nothing_else(
    dovecot: Dovecot, documented_nats: DocumentedNats, mailbus: Maker, prefix: str, user: str, allowed: dict[str, Any]
) -> None:
    account = imap_account(dovecot, prefix, id="support")
    settings = settings_for(documented_nats.url, "mail", account)
    settings["nats"] |= {"user": "mailbus", "password": "secret"}
    one = mailbus(settings)
    one.start()
    await one.started()
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        refused.append(str(error))

    nc = await nats.connect(
        documented_nats.url, user=user, password="secret", inbox_prefix=f"_INBOX_{user}".encode(), error_cb=on_error
    )
    try:
        for verb, body in (READING | WRITING).items():
            payload = json.dumps(body).encode()
            if verb in allowed:
                answer = await asked(nc, f"mail.cmd.support.{verb}", payload)
                if "Nats-Service-Error-Code" in (answer.headers or {}):
                    assert answer.headers["Nats-Service-Error-Code"] == "400", (verb, answer.data)
                continue
            with pytest.raises((nats.errors.TimeoutError, asyncio.TimeoutError)):
                await nc.request(f"mail.cmd.support.{verb}", payload, timeout=0.3)
            assert any(f"mail.cmd.support.{verb}" in error for error in refused), (verb, refused)
        # Another account is another subject.
        with pytest.raises((nats.errors.TimeoutError, asyncio.TimeoutError)):
            await nc.request("mail.cmd.billing.search", b"{}", timeout=0.3)
        assert any("mail.cmd.billing.search" in error for error in refused)
    finally:
        await nc.close()
    assert await one.stop() == 0
