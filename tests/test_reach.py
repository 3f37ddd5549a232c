"""What a host's name leads to is looked at before anything is connected, and is what is connected."""

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from service.clock import SystemClock
from service.errors import Permanent
from service.imap import Session
from service.oauth import Tokens
from service.reach import ANYWHERE, Reach, open_socket
from service.smtp import Relay
from tests.imap.test_session import options
from tests.oauth.harness import tokens
from tests.servers.imap_stub import ImapStub
from tests.servers.oauth import OAuthServer
from tests.servers.smtp import ScriptedRelay
from tests.settings.conftest import Load, Problems, load, problems
from tests.smtp.harness import Dot
from tests.smtp.harness import options as smtp_options

__all__ = ["load", "problems"]

ELSEWHERE = Reach((ip_network("10.0.0.0/8"),), public=True)


@pytest.mark.fault("G06")
@pytest.mark.parametrize(
    ("address", "anywhere", "elsewhere"),
    [
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("fe80::1%eth0", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("224.0.0.1", False, False),
        ("ff02::1", False, False),
        ("127.0.0.1", True, False),
        ("::1", True, False),
        ("::ffff:127.0.0.1", True, False),
        ("192.168.1.1", True, False),
        ("fd00::1", True, False),
        ("10.1.2.3", True, True),
        ("::ffff:10.1.2.3", True, True),
        ("64:ff9b::0a01:0203", True, True),
        ("8.8.8.8", True, True),
        ("2001:4860:4860::8888", True, True),
    ],
)
def test_an_address_is_permitted_by_what_it_is_not_by_how_it_is_written(
    address: str, anywhere: bool, elsewhere: bool
) -> None:
    assert ANYWHERE.permits(address) is anywhere
    assert ELSEWHERE.permits(address) is elsewhere


@pytest.mark.fault("G06")
async def test_a_name_is_resolved_once_and_only_what_is_permitted_is_connected(
    imap_stub: ImapStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def rebinding(host: str, port: int, **more: Any) -> Any:
        asked.append(host)
        return [*await resolve("169.254.169.254", port, **more), *await resolve("127.0.0.1", port, **more)]

    monkeypatch.setattr(loop, "getaddrinfo", rebinding)
    (await open_socket("mail.example", imap_stub.port, ANYWHERE, where="x")).close()
    assert asked == ["mail.example"]


@pytest.mark.fault("G06")
async def test_neither_mail_servers_nor_token_endpoints_hear_from_us_where_they_may_not_be(
    imap_stub: ImapStub, relay: ScriptedRelay, oauth: OAuthServer
) -> None:
    with pytest.raises(Permanent, match=r"127\.0\.0\.1 is at 127\.0\.0\.1, which may not be connected") as refused:
        await Session.open(options(imap_stub.port, reach=ELSEWHERE), clock=SystemClock())
    assert "`network.allow`" in refused.value.remedy
    sender = Relay(smtp_options(relay, reach=ELSEWHERE), SystemClock())
    with pytest.raises(Permanent, match="may not be connected"):
        await sender.deliver("me@x", ("a@x",), b"Subject: x\r\n\r\n", before_final_dot=Dot())
    source: Tokens = tokens(oauth, reach=ELSEWHERE)
    with pytest.raises(Permanent, match="may not be connected"):
        await source.get()
    assert (len(imap_stub.commands), relay.connections, len(oauth.asked)) == (0, 0, 0)


def test_networks_are_written_as_they_are_known(load: Load, problems: Problems) -> None:
    assert load("{}").network.reach == ANYWHERE
    assert load("network: {allow: [public, 10.0.0.0/8]}").network.reach == ELSEWHERE
    assert load("network: {allow: []}").network.reach == Reach(())
    assert problems("network: {allow: [everywhere]}") == [
        "network.allow[0]: write a network such as 10.0.0.0/8 or 192.0.2.7/32, or public (got 'everywhere')"
    ]
