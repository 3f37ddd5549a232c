"""A process that logs in: by token on real Dovecot and aiosmtpd, or refused; what it says of it, and what it keeps."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.mailbus import Mailbus, command, reading, settings_for, until, words
from tests.servers.nats import NatsServer
from tests.servers.oauth import OAuthServer
from tests.servers.smtp import RelayMaker, ScriptedRelay
from tests.servers.smtp_tokens import TokenWatch
from tests.smtp.harness import server_context
from tests.whole.test_life import Maker, mail

MARKERS = ("access-marker", "refresh-marker", "secret-marker", "wrong-marker", "right-marker")


def marked(text: str) -> list[str]:
    return [marker for marker in MARKERS if marker in text]


def token_account(
    oauth: OAuthServer, server: Dovecot, user: str, refresh: object, relay: ScriptedRelay | None = None
) -> dict[str, Any]:
    """An account with `oauth2` for both directions, all of it under TLS."""
    account: dict[str, Any] = {
        "id": "box",
        "address": f"{user}@example.com",
        "username": user,
        "oauth2": {
            "grant": "refresh_token",
            "token_url": oauth.url,
            "client_id": oauth.client_id,
            "client_secret": oauth.client_secret,
            "refresh_token": refresh,
            "scope": "mail",
            "ca": str(oauth.ca),
        },
        "incoming": {
            "imap": {"host": server.host, "port": server.imaps, "ca": str(server.ca), "reply": "5s"},
            "mailboxes": ["INBOX", "Two", "Three"],
            "initial": "all",
        },
    }
    if relay is not None:
        smtp = {"host": "127.0.0.1", "port": relay.port, "security": "starttls", "ca": str(oauth.ca)}
        account["outgoing"] = {"smtp": smtp}
    return account


async def shown_by(one: Mailbus) -> str:
    """All that one may read of a process without its mail: metrics, page, its source, log."""
    url = f"http://127.0.0.1:{one.port}"
    async with aiohttp.ClientSession() as client:
        texts = [await (await client.get(url + path)).text() for path in ("/metrics", "/readyz", "/")]
        async with client.get(url + "/events") as response:
            texts += [(await response.content.readline()).decode() for _ in range(2)]
    return "".join([*texts, one.log_file.read_text()])


@pytest.mark.fault("G04")
@pytest.mark.fault("G05")
async def test_a_token_serves_all_mailboxes_and_the_sender_and_nothing_shows_it(
    dovecot_with_tokens: Dovecot,
    oauth: OAuthServer,
    make_relay: RelayMaker,
    authority: trustme.CA,
    own_nats: NatsServer,
    mailbus: Maker,
    prefix: str,
    tmp_path: Path,
) -> None:
    oauth.user, oauth.rotates = prefix, True
    file = tmp_path / "refresh"
    file.write_text(oauth.refresh_token)
    relay = await make_relay(password="x", starttls=server_context(authority), handler=TokenWatch(oauth.tokens).handler)
    with dovecot_with_tokens.client(prefix) as client:
        client.create("Two")
        client.create("Three")
    await dovecot_with_tokens.append(prefix, [mail(1)])
    settings = settings_for(own_nats.url, prefix, token_account(oauth, dovecot_with_tokens, prefix,
                                                                {"file": str(file)}, relay))  # fmt: skip
    one = mailbus(settings)
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
        code, _, err = await command(one, "send", "box", "--to", "you@example.org", "--subject", "Hi", "--text", "x")
        assert code == 0, err
        assert len(await relay.received(1)) == 1
        assert len(oauth.asked) == 1
        assert [one.kind for one in await reader.account_events("connected")] == ["connected"]
    # Another process finds the refresh token that is good now.
    assert file.read_text().strip() == oauth.refresh_token == "refresh-marker-1"
    code, out, _ = await command(one, "check")
    assert code == 0, out
    assert "oauth2: a token, good for 60 min" in out
    shown = await shown_by(one)
    assert await one.stop() == 0
    assert not marked(shown + one.log_file.read_text() + out)
    assert one.said("token_renewed")
    assert one.said("refresh_token_kept")


@pytest.mark.fault("G05")
async def test_a_refresh_token_that_cannot_be_kept_is_degraded_and_the_mail_comes(
    dovecot_with_tokens: Dovecot, oauth: OAuthServer, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    oauth.user, oauth.rotates = prefix, True
    account = token_account(oauth, dovecot_with_tokens, prefix, {"env": "REFRESH"})
    account["incoming"]["mailboxes"] = ["INBOX"]
    await dovecot_with_tokens.append(prefix, [mail(1)])
    one = mailbus(settings_for(own_nats.url, prefix, account), REFRESH=oauth.refresh_token)
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
        await until(lambda: any(line["state"] == "degraded" for line in one.said("account_state")))
        last = (await reader.account_events("degraded"))[-1].body
    assert last["state"] == "degraded"
    assert "cannot be kept" in last["detail"]
    assert "{file: PATH}" in last["remedy"]
    assert await one.stop() == 0
    assert not marked(one.log_file.read_text())


@pytest.mark.fault("E08")
@pytest.mark.fault("G05")
async def test_a_consent_that_was_taken_back_is_auth_failed_said_once_and_asked_once(
    dovecot_with_tokens: Dovecot,
    oauth: OAuthServer,
    make_relay: RelayMaker,
    authority: trustme.CA,
    own_nats: NatsServer,
    mailbus: Maker,
    prefix: str,
) -> None:
    relay = await make_relay(password="x", starttls=server_context(authority))
    one = mailbus(settings_for(own_nats.url, prefix, token_account(oauth, dovecot_with_tokens, prefix, "void", relay)))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await until(lambda: any(line["state"] == "auth_failed" for line in one.said("account_state")))
        # A request waits: no attempt is made with what was refused.
        await reader.nc.jetstream().publish(
            f"{prefix}.out.box", json.dumps({"id": "r", "to": [{"email": "a@example.org"}], "text": "x"}).encode()
        )
        await until(lambda: len(one.said("part_state")) >= 4, what="every part has heard of it")
        await asyncio.sleep(1)
        events = [one.body for one in await reader.account_events("auth_failed")]
    assert [body["state"] for body in events] == ["auth_failed"]
    assert "invalid_grant" in events[0]["detail"]
    assert "give the consent anew" in events[0]["remedy"]
    assert len(oauth.asked) == 1
    assert relay.connections == 0
    code, out, _ = await command_on(one, "accounts")
    assert code == 0
    assert "auth_failed" in out
    assert "give the consent anew" in " ".join(out.split())
    async with aiohttp.ClientSession() as client:
        metrics = await (await client.get(f"http://127.0.0.1:{one.port}/metrics")).text()
    assert 'mailbus_accounts{state="auth_failed"} 1.0' in metrics
    assert 'mailbus_tokens_total{result="refused"} 1.0' in metrics
    assert await one.stop() == 0


async def command_on(one: Mailbus, *given: str) -> tuple[int, str, str]:
    """A word that asks the process by HTTP, which listens on a port of its own choice."""
    one.settings["http"]["listen"] = f"127.0.0.1:{one.port}"
    file = one.folder / "asking.json"
    file.write_text(json.dumps(one.settings))
    return await words(*given, "-c", str(file))


@pytest.mark.fault("E08")
async def test_a_wrong_password_is_tried_once_for_all_mailboxes_and_the_remedy_is_the_providers(
    imap_stub: ImapStub, make_relay: RelayMaker, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    async def login(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"{tag} NO [AUTHENTICATIONFAILED] Invalid credentials\r\n")
        return True

    imap_stub.hooks["LOGIN"] = login
    relay = await make_relay(password="another")
    server = {"host": "127.0.0.1", "security": "none"}
    account = {
        "id": "box",
        "address": "me@gmail.com",
        "preset": "gmail",
        "password": "wrong-marker",
        "incoming": {"imap": server | {"port": imap_stub.port}, "mailboxes": ["INBOX", "Two", "Three", "Four"]},
        "outgoing": {"smtp": server | {"port": relay.port}},
    }
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await until(lambda: len(one.said("part_state")) >= 4, what="every part has heard of it")
        events = [one.body for one in await reader.account_events("auth_failed")]
    assert [body["state"] for body in events] == ["auth_failed"]
    assert "https://myaccount.google.com/apppasswords" in events[0]["remedy"]
    assert sum(" LOGIN " in line for line in imap_stub.commands) == 1
    assert relay.logins == 1
    async with aiohttp.ClientSession() as client:
        metrics = await (await client.get(f"http://127.0.0.1:{one.port}/metrics")).text()
    assert 'mailbus_accounts{state="auth_failed"} 1.0' in metrics
    file = one.folder / "mailbus.yaml"
    file.write_text(file.read_text().replace("127.0.0.1:0", f"127.0.0.1:{one.port}"))
    code, out, _ = await command(one, "accounts")
    assert code == 0
    assert "auth_failed" in out
    code, out, _ = await command(one, "check")
    assert code == 1
    # What it wants is said before anything is tried, and again where it is refused, in each direction.
    assert out.count("Gmail wants an app password") == 3
    assert await one.stop() == 0
    assert not marked(one.log_file.read_text() + out)


@pytest.mark.fault("G02")
async def test_a_server_without_starttls_is_degraded_and_told_tls(
    imap_stub: ImapStub, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    account = {
        "id": "box",
        "address": "me@example.com",
        "password": "right-marker",
        "incoming": {"imap": {"host": "127.0.0.1", "port": imap_stub.port, "security": "starttls"}},
    }
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        (event,) = await reader.account_events("degraded")
    assert "`security: tls`" in event.body["remedy"]
    assert not marked(" ".join(imap_stub.commands))
    assert await one.stop() == 0
