"""What a host's name leads to is looked at before anything is connected, and is what is connected."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from service import lookup, reach
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
    resolve = socket.getaddrinfo

    def rebinding(host: str, port: int, **more: Any) -> Any:
        if "flags" in more:
            return resolve(host, port, **more)
        asked.append(host)
        return [*resolve("169.254.169.254", port, **more), *resolve("127.0.0.1", port, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
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


# -- names that are not answered for -------------------------------------------------------------------------------


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Names of .stalled are answered once the event is set, those of .broken never are, others lead to loopback."""
    answered, resolve = threading.Event(), socket.getaddrinfo

    def resolver(host: str, port: int, **more: Any) -> Any:
        if "flags" in more:
            return resolve(host, port, **more)
        if host.endswith(".stalled"):
            answered.wait(30)
        if host.endswith(".broken"):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve("127.0.0.1", port, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield answered
    answered.set()


@pytest.mark.fault("F05")
async def test_a_name_that_is_not_answered_for_holds_up_no_other(
    imap_stub: ImapStub, oauth: OAuthServer, stalled: threading.Event
) -> None:
    before = threading.active_count()
    async with asyncio.TaskGroup() as group:
        # A provider's accounts, far more than there are threads for look-ups in an event loop.
        waiting = [
            group.create_task(open_socket("imap.stalled", imap_stub.port, ANYWHERE, where="x")) for _ in range(100)
        ]
        await asyncio.sleep(0)
        (await open_socket("imap.example", imap_stub.port, ANYWHERE, where="x")).close()
        with pytest.raises(socket.gaierror):
            await open_socket("imap.broken", imap_stub.port, ANYWHERE, where="x")
        assert await asyncio.to_thread(lambda: "the loop's own threads are free")
        assert threading.active_count() <= before + 3  # one for the name, and of the loop's
        # Who gives up leaves the others their look-up.
        waiting[0].cancel()
        stalled.set()
    assert sum(task.cancelled() for task in waiting) == 1
    for task in waiting[1:]:
        task.result().close()


@pytest.mark.fault("F05")
async def test_a_name_is_looked_up_anew_for_each_connection(
    imap_stub: ImapStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, resolve = ["127.0.0.1", "127.0.0.2"], socket.getaddrinfo

    def moved(host: str, port: int, **more: Any) -> Any:
        return resolve(host if "flags" in more else places.pop(), port, **more)

    monkeypatch.setattr(socket, "getaddrinfo", moved)
    with pytest.raises(ConnectionRefusedError):
        await open_socket("imap.example", imap_stub.port, ANYWHERE, where="x")
    (await open_socket("imap.example", imap_stub.port, ANYWHERE, where="x")).close()
    assert places == []


@pytest.mark.fault("F05")
async def test_an_address_that_refuses_or_says_nothing_is_followed_by_the_next(
    imap_stub: ImapStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "ADDRESS_PATIENCE_S", 0.05)
    resolve, loop = socket.getaddrinfo, asyncio.get_running_loop()
    connect = loop.sock_connect

    async def silent_at_3(sock: socket.socket, place: Any) -> None:
        if place[0] == "127.0.0.3":
            await asyncio.sleep(60)
        await connect(sock, place)

    def three(host: str, port: int, **more: Any) -> Any:
        if "flags" in more:
            return resolve(host, port, **more)
        return [found for last in (2, 3, 1) for found in resolve(f"127.0.0.{last}", port, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", three)
    monkeypatch.setattr(loop, "sock_connect", silent_at_3)
    made = await open_socket("imap.example", imap_stub.port, ANYWHERE, where="x")
    assert made.getpeername()[0] == "127.0.0.1"
    made.close()


@pytest.mark.fault("F05")
async def test_with_all_of_dns_away_threads_are_bounded_and_it_is_said(
    stalled: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "LIMIT", 3)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(lookup.addresses(f"{n}.stalled", 993)) for n in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(socket.gaierror, match="3 names are looked up and not answered"):
            await lookup.addresses("4.stalled", 993)
        stalled.set()
    assert all(task.result() for task in waiting)


@pytest.mark.parametrize("name", ["a" * 300 + ".example", ".example", "nowhere.invalid"])
async def test_what_is_no_name_leads_nowhere(name: str) -> None:
    with pytest.raises(socket.gaierror):
        await lookup.addresses(name, 993)
