"""What a process shows of secrets and of mail, whatever servers repeat: nothing in logs, metrics, the page, letters."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import Mailbus, imap_account, reading, settings_for, with_relay
from tests.servers.nats import NatsServer
from tests.servers.pop3_stub import Pop3Connection, Pop3Stub
from tests.servers.smtp import RelayMaker, ScriptedRelay
from tests.whole.test_life import until_sent

Maker = Callable[..., Mailbus]
KEY = ed25519.Ed25519PrivateKey.generate().private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()  # fmt: skip


async def shown_by(one: Mailbus) -> list[str]:
    """All that one may read of a process without its mail, but for its log: metrics, page, its source."""
    url = f"http://127.0.0.1:{one.port}"
    async with aiohttp.ClientSession() as client:
        texts = [await (await client.get(url + path)).text() for path in ("/metrics", "/readyz", "/")]
        async with client.get(url + "/events") as response:
            texts += [(await response.content.readline()).decode() for _ in range(2)]
    return texts


def account(id: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "address": f"marker-{id}@example.com", "password": f"marker-password-{id}"} | more


@pytest.mark.fault("G04")
async def test_no_secret_and_no_content_is_in_logs_metrics_the_page_or_the_headers_of_dead_letters(
    dovecot: Dovecot,
    own_nats: NatsServer,
    mailbus: Maker,
    prefix: str,
    relay: ScriptedRelay,
    make_relay: RelayMaker,
    imap_stub: ImapStub,
    pop3_stub: Pop3Stub,
    tmp_path: Path,
) -> None:
    async def login(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"{tag} NO wrong: {arguments}\r\n")
        return True

    async def password(connection: Pop3Connection, arguments: str) -> bool:
        await connection.send(f"-ERR [AUTH] wrong: {connection.user} {arguments}\r\n")
        return True

    imap_stub.hooks["LOGIN"] = login
    pop3_stub.capabilities, pop3_stub.hooks["PASS"] = "USER", password
    plain = {"host": "127.0.0.1", "security": "none"}
    closed = await make_relay(password="x", auth_reply="535 5.7.8 no marker-password-smtp for marker-smtp@example.com")
    strict = await make_relay()
    strict.script.mail = "530 5.7.0 <marker-strict@example.com> must log in"
    (file := tmp_path / "dkim.pem").write_text(KEY)
    dkim = [{"domain": "example.com", "selector": "s", "key": str(file)}]
    accounts = [
        with_relay(imap_account(dovecot, prefix), relay, dkim=dkim),
        account("imap", incoming={"imap": plain | {"port": imap_stub.port}}),
        account("pop3", incoming={"pop3": plain | {"port": pop3_stub.port}}),
        account("smtp", outgoing={"smtp": plain | {"port": closed.port}}),
        with_relay(account("strict"), strict),
    ]
    header = b"Subject: marker-subject\r\nFrom: marker-from@example.org\r\n"
    broken = b"Content-Type: application/pdf; name=marker-name\r\nContent-Transfer-Encoding: base64\r\n"
    await dovecot.append(prefix, [header + b"\r\nmarker-body\r\n", header + broken + b"\r\nmarker-!!!%%%\r\n"])
    relay.script.rcpt = {
        "marker-late@example.org": ["451 4.2.0 <marker-late@example.org> is busy"],
        "marker-no@example.org": ["550 5.1.1 <marker-no@example.org> unknown"],
    }
    one = mailbus(settings_for(own_nats.url, prefix, *accounts))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(2)
        to = [{"email": f"marker-{who}@example.org"} for who in ("to", "late", "no")]
        request = {"id": "r1", "to": to, "subject": "marker-out", "text": "marker-text"}
        wrong = [
            request | {"id": "r2", "to": [{"email": "marker-wrong"}]},
            request | {"id": "r3", "headers": {"Subject": "marker-header"}},
            request | {"id": "r4", "to": "marker-list@example.org"},
            request | {"id": "r5", "sendAt": "marker-time"},
        ]
        out = f"{prefix}.out"
        for payload in map(json.dumps, [request, *wrong, "marker-json"]):
            await reader.nc.jetstream().publish(f"{out}.box", payload.encode())
        await reader.nc.jetstream().publish(f"{out}.box", b'["marker-broken')
        for id in ("strict", "nobody"):
            await reader.nc.jetstream().publish(f"{out}.{id}", json.dumps(request).encode())
        await until_sent(reader, prefix, 1)
        await reader.account_events(*["auth_failed"] * 4)
        async with asyncio.timeout(30):
            while len(letters := await reader.events("DEAD")) < len(wrong) + 3:  # noqa: ASYNC110 a stream rings no bell
                await asyncio.sleep(0.05)
        shown = [*await shown_by(one), json.dumps([letter.headers for letter in letters])]
    assert b"DKIM-Signature" in relay.messages[0].content
    assert await one.stop() == 0
    (key,) = KEY.splitlines()[1:-1]
    for text in (*shown, one.log_file.read_text()):
        assert re.findall(".{0,80}marker-.{0,20}", text) == []
        assert key not in text
        assert "secret" not in text.replace("secrets", "")
