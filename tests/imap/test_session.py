"""A session on real Dovecot, and on a server that misbehaves on command."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from service.clock import SystemClock
from service.contract import Security
from service.errors import AuthRefused, PeerError, Permanent, Transient
from service.imap import Session, SessionOptions
from service.observe import metrics
from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import PASSWORD
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.proxy import FaultProxy
from tests.servers.scripted import serving

MAIL = b"Subject: one\r\n\r\nbody\r\n"


def options(port: int, **changes: Any) -> SessionOptions:
    usual: dict[str, Any] = {
        "account": "a",
        "host": "127.0.0.1",
        "port": port,
        "security": Security.NONE,
        "tls": None,
        "username": "user",
        "password": PASSWORD,
        "message_limit": 1_000_000,
        "reply_s": 5.0,
        "connect_s": 10.0,
    }
    return SessionOptions(**(usual | changes))


@asynccontextmanager
async def session(port: int, **changes: Any) -> AsyncIterator[Session]:
    opened = await Session.open(options(port, **changes), clock=SystemClock())
    try:
        yield opened
    finally:
        opened.abort()


async def bodies(opened: Session, uids: list[int], *, header_only: bool = False) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    await opened.fetch_bodies(uids, lambda uid, body: found.update({uid: body}), header_only=header_only)
    return found


# -- on Dovecot -----------------------------------------------------------------------------------------------


async def test_a_message_is_read_whole_and_stays_unseen(dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, [MAIL])
    async with session(dovecot.imap, username=prefix) as opened:
        selected = await opened.examine("INBOX")
        assert (selected.exists, selected.uidnext) == (1, 2)
        assert await bodies(opened, [1]) == {1: MAIL}
        assert await bodies(opened, [1], header_only=True) == {1: b"Subject: one\r\n\r\n"}
        (message,) = await opened.survey(1, None)
    assert message.size == len(MAIL)
    assert r"\Seen" not in message.flags


@pytest.mark.fault("A04")
async def test_a_survey_beyond_the_last_message_is_empty(dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, [MAIL, MAIL])
    async with session(dovecot.imap, username=prefix) as opened:
        await opened.examine("INBOX")
        assert await opened.survey(3, None) == []
        assert [message.uid for message in await opened.survey_last()] == [2]


@pytest.mark.parametrize("security", [Security.TLS, Security.STARTTLS])
async def test_tls_with_a_known_authority(dovecot: Dovecot, prefix: str, security: Security) -> None:
    context = ssl.create_default_context(cafile=str(dovecot.ca))
    port = dovecot.imaps if security is Security.TLS else dovecot.imap
    async with session(port, username=prefix, security=security, tls=context, host="localhost") as opened:
        assert (await opened.examine("INBOX")).exists == 0


@pytest.mark.fault("G03")
async def test_an_unknown_authority_is_refused_with_the_reason(dovecot: Dovecot) -> None:
    with pytest.raises(Permanent, match="certificate is refused: unable to get local issuer"):
        await Session.open(
            options(dovecot.imaps, security=Security.TLS, tls=ssl.create_default_context()), clock=SystemClock()
        )


@pytest.mark.fault("G03")
async def test_another_hosts_certificate_is_refused(imap_stub: ImapStub) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    listening = await asyncio.start_server(imap_stub.serve, "127.0.0.1", 0, ssl=server)
    port = listening.sockets[0].getsockname()[1]
    async with listening:
        with pytest.raises(Permanent, match=r"certificate is refused: .*mismatch"):
            await Session.open(options(port, security=Security.TLS, tls=client), clock=SystemClock())


async def test_a_wrong_password_is_said_without_showing_it(dovecot: Dovecot) -> None:
    with pytest.raises(AuthRefused) as refused:
        await Session.open(options(dovecot.imap, password="not-this-one"), clock=SystemClock())
    assert "not-this-one" not in str(refused.value)


async def test_a_mailbox_that_is_not_there_is_permanent(dovecot: Dovecot, prefix: str) -> None:
    async with session(dovecot.imap, username=prefix) as opened:
        with pytest.raises(Permanent, match="cannot be opened"):
            await opened.examine("Nö & none")
        assert [mailbox.name for mailbox in await opened.list_mailboxes()] == ["INBOX"]


async def test_mailboxes_are_listed_by_their_real_names(dovecot: Dovecot, prefix: str) -> None:
    with dovecot.client(prefix) as client:
        client.create('"Entw&APw-rfe"')
    async with session(dovecot.imap, username=prefix) as opened:
        assert {mailbox.name for mailbox in await opened.list_mailboxes()} == {"INBOX", "Entwürfe"}
        assert (await opened.examine("Entwürfe")).exists == 0


async def test_the_lowest_uid_since_a_day(dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, [MAIL, MAIL])
    async with session(dovecot.imap, username=prefix) as opened:
        await opened.examine("INBOX")
        assert await opened.search_lowest("SINCE 1-Jan-2020") == 1
        assert await opened.search_lowest("SINCE 1-Jan-2090") is None


async def test_idle_hears_new_mail(dovecot: Dovecot, prefix: str) -> None:
    async with session(dovecot.imap, username=prefix) as opened:
        await opened.examine("INBOX")
        async with asyncio.TaskGroup() as group:
            heard = group.create_task(opened.idle(20))
            group.create_task(dovecot.append(prefix, [MAIL]))
        assert heard.result() is not None
        assert opened.exists == 1
        assert await opened.idle(0.01) is None
        await opened.noop()


async def test_idle_hears_new_mail_also_after_another_message_went(dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, [MAIL, MAIL])

    def replace() -> None:
        with dovecot.client(prefix) as client:
            client.select("INBOX")
            client.store("1", "+FLAGS", "(\\Deleted)")
            client.expunge()
            client.append("INBOX", "", "", MAIL)

    async with session(dovecot.imap, username=prefix) as opened:
        await opened.examine("INBOX")
        async with asyncio.TaskGroup() as group:
            heard = group.create_task(opened.idle(20))
            group.create_task(asyncio.to_thread(replace))
        assert heard.result() is not None
        assert opened.exists == 2


# -- on a server that misbehaves ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capabilities", "command"),
    [
        ("IMAP4rev1 AUTH=PLAIN SASL-IR", "AUTHENTICATE PLAIN AHVzZXIAc2VjcmV0"),
        ("IMAP4rev1 AUTH=PLAIN", "AHVzZXIAc2VjcmV0"),
        ("IMAP4rev1", 'LOGIN "user" "secret"'),
    ],
)
async def test_the_way_to_log_in_follows_what_is_offered(imap_stub: ImapStub, capabilities: str, command: str) -> None:
    async def authenticate(connection: Connection, tag: str, arguments: str) -> bool:
        if arguments == "PLAIN":
            await connection.send("+ \r\n")
            imap_stub.commands.append(await connection.line())
        return False

    imap_stub.capabilities = capabilities
    imap_stub.hooks["AUTHENTICATE"] = authenticate
    async with session(imap_stub.port):
        assert any(line.endswith(command) for line in imap_stub.commands)


async def test_no_password_is_sent_where_login_is_disabled(imap_stub: ImapStub) -> None:
    imap_stub.capabilities = "IMAP4rev1 LOGINDISABLED"
    with pytest.raises(Permanent, match="LOGINDISABLED"):
        await Session.open(options(imap_stub.port), clock=SystemClock())
    assert not any("secret" in line for line in imap_stub.commands)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("NO [AUTHENTICATIONFAILED] no", AuthRefused),
        ("NO [UNAVAILABLE] later", Transient),
        ("NO [ALERT] Too many simultaneous connections. (Failure)", Transient),
        ("NO Login failed.", AuthRefused),
        ("NO Login failed: service temporarily unavailable", Transient),
        ("NO rate limit", Transient),
        ("NO [ALERT] Invalid credentials: try again", AuthRefused),
        ("NO [CANNOT] generate an app password, or try again", AuthRefused),
        ("NO please generate an app password", AuthRefused),
        ("NO [AUTHENTICATIONFAILED] Temporary looking, but wrong", AuthRefused),
        ("NO [PRIVACYREQUIRED] tls", Permanent),
    ],
)
async def test_a_refused_login_is_told_from_a_busy_server(
    imap_stub: ImapStub, answer: str, verdict: type[Exception]
) -> None:
    async def login(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"{tag} {answer}\r\n")
        return True

    imap_stub.hooks["LOGIN"] = login
    with pytest.raises(verdict) as refused:
        await Session.open(options(imap_stub.port), clock=SystemClock())
    assert type(refused.value) is verdict


@pytest.mark.fault("G04")
async def test_a_server_that_shows_the_password_does_not_make_us_show_it(imap_stub: ImapStub) -> None:
    async def login(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"{tag} NO wrong: {arguments}\r\n")
        return True

    imap_stub.hooks["LOGIN"] = login
    with pytest.raises(AuthRefused) as refused:
        await Session.open(options(imap_stub.port, password="marker-4711"), clock=SystemClock())
    assert "marker-4711" not in str(refused.value)


@pytest.mark.fault("A02")
async def test_bye_as_greeting_says_why() -> None:
    async with serving(ImapStub(greeting="* BYE too busy\r\n")) as stub:
        with pytest.raises(Transient, match="not available: too busy"):
            await Session.open(options(stub.port), clock=SystemClock())


@pytest.mark.fault("A02")
async def test_bye_in_idle_wakes_whoever_waits(imap_stub: ImapStub) -> None:
    async def idle(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send("+ idling\r\n* BYE timeout\r\n")
        connection.cut()
        return True

    imap_stub.hooks["IDLE"] = idle
    async with session(imap_stub.port) as opened:
        await opened.examine("INBOX")
        with pytest.raises(Transient, match=r"connection lost"):
            await opened.idle(60)


@pytest.mark.fault("A02")
async def test_a_connection_lost_in_a_fetch_wakes_whoever_waits(imap_stub: ImapStub) -> None:
    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send("* 1 FETCH (UID 1 BODY[] {100}\r\nhalf")
        connection.cut()
        return True

    imap_stub.hooks["UID FETCH"] = fetch
    async with session(imap_stub.port) as opened:
        await opened.examine("INBOX")
        with pytest.raises(Transient, match="connection lost"):
            await bodies(opened, [1])
        with pytest.raises(Transient, match="connection lost"):
            await opened.noop()


@pytest.mark.fault("A01")
async def test_an_idle_that_died_in_silence_is_found_when_it_is_left(
    dovecot: Dovecot, prefix: str, fault_proxy: Callable[[str, int], Awaitable[FaultProxy]]
) -> None:
    proxy = await fault_proxy(dovecot.host, dovecot.imap)
    async with session(proxy.port, username=prefix, reply_s=1.0) as opened:
        await opened.examine("INBOX")
        assert await opened.idle(0.05) is None
        stale = metrics.IDLE_STALE._value.get()
        proxy.swallow()
        with pytest.raises(PeerError, match="IDLE is dead"):
            await opened.idle(0.05)
        assert metrics.IDLE_STALE._value.get() == stale + 1


async def test_silence_in_answer_to_a_command_is_a_dead_connection(imap_stub: ImapStub) -> None:
    async def noop(connection: Connection, tag: str, arguments: str) -> bool:
        return True

    imap_stub.hooks["NOOP"] = noop
    async with session(imap_stub.port, reply_s=0.2) as opened:
        with pytest.raises(PeerError, match="no answer to NOOP"):
            await opened.noop()


async def test_a_refused_idle_is_not_asked_for_again(imap_stub: ImapStub) -> None:
    async def idle(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"{tag} NO not here\r\n")
        return True

    imap_stub.hooks["IDLE"] = idle
    async with session(imap_stub.port) as opened:
        await opened.examine("INBOX")
        assert await opened.idle(60) is None
        assert "IDLE" not in opened.capabilities


async def test_a_cancelled_command_ends_the_connection(imap_stub: ImapStub) -> None:
    asked = asyncio.Event()

    async def noop(connection: Connection, tag: str, arguments: str) -> bool:
        asked.set()
        return True

    imap_stub.hooks["NOOP"] = noop
    async with session(imap_stub.port) as opened:
        task = asyncio.create_task(opened.noop())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Transient, match="given up half-way"):
            await opened.noop()


@pytest.mark.fault("A10")
async def test_a_message_in_two_responses_and_flags_between_are_put_together(imap_stub: ImapStub) -> None:
    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(
            "* 2 FETCH (UID 9 FLAGS ())\r\n* 1 FETCH (FLAGS (\\Seen))\r\n* 2 FETCH (BODY[] {2}\r\nab)\r\n"
            "* 1 FETCH (BODY[] {2}\r\ncd UID 4)\r\n* 2 FETCH (UID 9 BODY[] {2}\r\nzz)\r\n"
            "* 3 FETCH (UID 77 BODY[] NIL)\r\n"
            f"{tag} OK done\r\n"
        )
        return True

    imap_stub.hooks["UID FETCH"] = fetch
    async with session(imap_stub.port) as opened:
        await opened.examine("INBOX")
        assert await bodies(opened, [4, 9, 77]) == {9: b"ab", 4: b"cd"}


@pytest.mark.fault("A13")
async def test_untagged_lines_without_end_are_given_up(imap_stub: ImapStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.imap.protocol.RESPONSES_LIMIT", 1000)

    async def noop(connection: Connection, tag: str, arguments: str) -> bool:
        for _ in range(100):
            await connection.send("* OK still here\r\n" * 100)
        return True

    imap_stub.hooks["NOOP"] = noop
    async with session(imap_stub.port) as opened:
        with pytest.raises(PeerError, match="over 1000 responses"):
            await opened.noop()


@pytest.mark.fault("A01")
async def test_the_kernel_asks_a_silent_peer_within_two_minutes(imap_stub: ImapStub) -> None:
    async with session(imap_stub.port) as opened:
        transport = opened.protocol.transport
        assert transport is not None
        made: socket.socket = transport.get_extra_info("socket")
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, every, count = (
            made.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + every * count <= 120


async def test_a_port_that_speaks_no_imap_is_said(imap_stub: ImapStub) -> None:
    async with serving(ImapStub(greeting="220 smtp ready\r\n")) as stub:
        with pytest.raises(PeerError, match=r"no response of IMAP|no IMAP greeting"):
            await Session.open(options(stub.port), clock=SystemClock())


async def test_a_server_that_says_nothing_is_given_up_in_time(imap_stub: ImapStub) -> None:
    async with serving(ImapStub(greeting="")) as stub:
        with pytest.raises(Transient, match=r"no connection within 0.3 s .*: check host, port and `security`"):
            await Session.open(options(stub.port, connect_s=0.3), clock=SystemClock())


async def test_a_mailbox_without_uidvalidity_is_refused(imap_stub: ImapStub) -> None:
    imap_stub.uidvalidity = 0
    async with session(imap_stub.port) as opened:
        with pytest.raises(Permanent, match="no UIDVALIDITY"):
            await opened.examine("INBOX")
