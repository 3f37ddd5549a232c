"""A process with `preset: gmail` and a password, against Gmail's habits: what it announces, finds and says."""

import ssl
from pathlib import Path

import pytest
import trustme

from service.contract import mailbox_token
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub_gmail import ALL, SPAM, Gmail
from tests.servers.mailbus import command, imap_account, reading, settings_for
from tests.servers.nats import NatsServer
from tests.servers.scripted import serving
from tests.servers.smtp import RelayMaker
from tests.smtp.harness import server_context
from tests.whole.test_commands import cmd
from tests.whole.test_life import Maker, mail


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context, and the file with its authority."""
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return server_context(authority), str(file)


@pytest.mark.fault("A17")
async def test_a_preset_and_a_password_are_all_there_is_to_write(
    certificate: tuple[ssl.SSLContext, str], make_relay: RelayMaker, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    context, ca = certificate
    relay = await make_relay(password="app-password", tls=context)
    async with serving(Gmail(), context) as gmail:
        assert isinstance(gmail, Gmail)
        there = await gmail.put(mail(1), "\\Inbox", "Work")
        account = {
            "id": "box",
            "address": "me@gmail.com",
            "preset": "gmail",
            "password": "app-password",
            # Only so that it meets this server instead.
            "incoming": {"imap": {"host": "127.0.0.1", "port": gmail.port, "ca": ca}, "initial": "all"},
            "outgoing": {"smtp": {"host": "127.0.0.1", "port": relay.port, "ca": ca}},
        }
        one = mailbus(settings_for(own_nats.url, prefix, account))
        one.start()
        await one.started()
        async with reading(own_nats.url, prefix) as reader:
            await reader.wait_received(1)
            await gmail.put(mail(2), "Work", "\\Inbox")
            first, second = await reader.wait_received(2)
            spam = await gmail.put(mail(3), "\\Spam")
            third = (await reader.wait_received(3))[2]
        assert first.body["mailbus"]["emailId"] == str(there.msgid)
        assert first.body["keywords"] == {"work": True}
        got = await cmd(one, "get", {"ids": [first.body["id"]], "properties": list(first.body)})
        assert got["list"] == [first.body | {"bodyValues": {}}]
        # Once, whatever labels it has; what is spam is where spam is.
        places = [event.subject.split(".")[3] for event in (first, second, third)]
        assert places == [mailbox_token(name) for name in (ALL, ALL, SPAM)]
        assert third.body["mailbus"]["emailId"] == str(spam.msgid)
        raw = {"mailbox": ALL, "filter": {"gmail": "mail 2"}}
        assert (await cmd(one, "search", raw))["ids"] == [second.body["id"]]
        code, out, _ = await command(one, "check")
        assert code == 0, out
        assert "provider: Gmail wants an app password" in out
        assert "15 connections at once" in out
        assert await one.stop() == 0


async def test_gmails_own_search_is_refused_where_there_is_none(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(dovecot, prefix)))
    one.start()
    await one.started()
    code, out, _ = await command(one, "cmd", "box", "search", '{"mailbox": "INBOX", "filter": {"gmail": "has:drive"}}')
    assert code == 1
    assert "this mail server is not Gmail: it offers no X-GM-EXT-1" in out
    assert await one.stop() == 0
