"""A maildrop over the wire: on real Dovecot, and on a scripted server for what that will not do."""

import asyncio
import base64
import hashlib
import ssl

import pytest

from service.clock import SystemClock
from service.contract import Security
from service.errors import AuthRefused, MailbusError, PeerError, Permanent, Transient
from service.pop3 import NotNow, Session
from tests.oauth.harness import tokens
from tests.pop3.harness import answering, cutting, listed, options, read, session
from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import PASSWORD
from tests.servers.oauth import OAuthServer
from tests.servers.pop3_stub import Mail, Pop3Connection, Pop3Stub

DOTS = b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\nend\r\n"
MARKER = "Pa55-marker"


def mails(count: int) -> list[bytes]:
    return [b"Subject: %d\r\n\r\n%b\r\n" % (n, b"x" * n) for n in range(count)]


# -- on Dovecot -----------------------------------------------------------------------------------------------


async def test_a_maildrop_of_dovecot_is_listed_read_and_emptied(dovecot: Dovecot, prefix: str) -> None:
    bodies = [*mails(150), DOTS]
    await dovecot.append(prefix, bodies)
    async with session(dovecot.pop3, username=prefix) as opened:
        sizes, uidls = await listed(opened)
        assert sizes == {number: len(body) for number, body in enumerate(bodies, 1)}
        assert len(set(uidls.values())) == len(bodies)
        assert opened.pipelining
        assert await read(opened, list(sizes)) == dict(enumerate(bodies, 1))
        assert await read(opened, [3], whole=False) == {3: b"Subject: 2\r\n\r\n"}
        assert await opened.delete([1, 2, 999]) == [999]
        await opened.quit()
    async with session(dovecot.pop3, username=prefix) as opened:
        assert set((await listed(opened))[1].values()) == {uidls[n] for n in uidls if n > 2}


@pytest.mark.fault("B01")
async def test_what_is_marked_stays_when_the_connection_is_lost_before_quit(dovecot: Dovecot, prefix: str) -> None:
    await dovecot.append(prefix, mails(3))
    async with session(dovecot.pop3, username=prefix) as opened:
        assert await opened.delete([1, 2, 3]) == []
        opened.abort()
    async with session(dovecot.pop3, username=prefix) as opened:
        assert len((await listed(opened))[0]) == 3


@pytest.mark.parametrize("security", [Security.TLS, Security.STARTTLS])
async def test_a_connection_to_dovecot_is_secured(dovecot: Dovecot, prefix: str, security: Security) -> None:
    await dovecot.append(prefix, [DOTS])
    context = ssl_context(dovecot)
    port = dovecot.pop3s if security is Security.TLS else dovecot.pop3
    async with session(port, username=prefix, security=security, tls=context) as opened:
        assert await read(opened, [1]) == {1: DOTS}


def ssl_context(server: Dovecot) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(server.ca))


async def test_a_wrong_password_is_told_apart(dovecot: Dovecot, prefix: str) -> None:
    with pytest.raises(AuthRefused) as refused:
        await Session.open(options(dovecot.pop3, username=prefix, password=MARKER), clock=SystemClock())
    assert MARKER not in str(refused.value)


async def test_a_token_opens_a_maildrop_of_dovecot(
    dovecot_with_tokens: Dovecot, oauth: OAuthServer, prefix: str
) -> None:
    oauth.user = prefix
    await dovecot_with_tokens.append(prefix, [DOTS])
    async with session(dovecot_with_tokens.pop3, username=prefix, password="", tokens=tokens(oauth)) as opened:
        assert await read(opened, [1]) == {1: DOTS}


# -- logging in -----------------------------------------------------------------------------------------------


async def test_without_sasl_user_and_pass_are_said(pop3_stub: Pop3Stub) -> None:
    pop3_stub.capabilities = "USER UIDL"
    async with session(pop3_stub.port):
        assert pop3_stub.commands[1:3] == ["USER someone", f"PASS {PASSWORD}"]


async def test_a_server_that_knows_no_capabilities_is_logged_in_to(pop3_stub: Pop3Stub) -> None:
    pop3_stub.hooks["CAPA"] = answering("-ERR what?\r\n")
    async with session(pop3_stub.port) as opened:
        assert not opened.pipelining
        assert pop3_stub.commands == ["CAPA", "USER someone", f"PASS {PASSWORD}"]


async def test_apop_is_said_where_it_is_asked_for(pop3_stub: Pop3Stub) -> None:
    async def apop(connection: Pop3Connection, arguments: str) -> bool:
        right = hashlib.md5(f"<1.2@stub>{PASSWORD}".encode()).hexdigest()
        await pop3_stub.log_in(connection, ok=arguments == f"someone {right}")
        return True

    pop3_stub.hooks["APOP"] = apop
    async with session(pop3_stub.port, apop=True):
        assert PASSWORD not in "".join(pop3_stub.commands)


async def test_apop_without_a_timestamp_gives_nothing_away(pop3_stub: Pop3Stub) -> None:
    pop3_stub.greeting = "+OK ready\r\n"
    with pytest.raises(Permanent, match="no APOP"):
        await Session.open(options(pop3_stub.port, apop=True), clock=SystemClock())
    assert pop3_stub.commands == ["CAPA"]


async def test_a_long_token_goes_in_a_line_of_its_own_and_its_refusal_is_shown(
    pop3_stub: Pop3Stub, oauth: OAuthServer
) -> None:
    pop3_stub.capabilities = "SASL(XOAUTH2) USER"
    source = LongToken()

    async def auth(connection: Pop3Connection, arguments: str) -> bool:
        assert arguments == "XOAUTH2"
        await connection.send("+ \r\n")
        said = base64.b64decode(await connection.line()).decode()
        assert said == f"user=someone\x01auth=Bearer {await source.get()}\x01\x01"
        status = base64.b64encode(b'{"status":"400","scope":"mail"}').decode()
        await connection.send(f"+ {status}\r\n")
        assert await connection.line() == ""
        await connection.send("-ERR [AUTH] no\r\n")
        return True

    pop3_stub.hooks["AUTH"] = auth
    with pytest.raises(AuthRefused, match="status 400") as refused:
        await Session.open(options(pop3_stub.port, tokens=source, password=""), clock=SystemClock())
    assert MARKER not in str(refused.value)


class LongToken:
    async def get(self) -> str:
        return MARKER * 40

    async def renew(self, refused: str) -> str:
        return MARKER * 40


async def test_a_server_without_tokens_says_what_to_do(pop3_stub: Pop3Stub) -> None:
    with pytest.raises(Permanent, match="takes no OAuth 2 tokens"):
        await Session.open(options(pop3_stub.port, tokens=LongToken()), clock=SystemClock())


async def test_a_server_that_asks_for_ever_is_told_nothing_more(pop3_stub: Pop3Stub) -> None:
    pop3_stub.hooks["AUTH"] = answering("+ \r\n" * 100)
    with pytest.raises(PeerError, match="more than there is to say"):
        await Session.open(options(pop3_stub.port), clock=SystemClock())


REFUSALS: list[tuple[str, str, type[MailbusError]]] = [
    ("USER", "-ERR [IN-USE] locked by another session", NotNow),
    ("USER", "-ERR [LOGIN-DELAY] wait", NotNow),
    ("USER", "-ERR [SYS/TEMP] backend down", Transient),
    ("USER", "-ERR [SYS/PERM] mailbox damaged", Permanent),
    ("USER", "-ERR [AUTH] no", AuthRefused),
    # Without a code: by words, and by what the server could have said.
    ("USER", "-ERR maildrop already locked", NotNow),
    ("USER", "-ERR temporary authentication failure", Transient),
    ("USER", "-ERR invalid password", AuthRefused),
    ("USER", "-ERR Logon failure: unknown user name or bad password.", AuthRefused),
    ("USER AUTH-RESP-CODE", "-ERR invalid password", Transient),
    ("USER", "-ERR", Transient),
]


@pytest.mark.parametrize(("capabilities", "reply", "verdict"), REFUSALS)
@pytest.mark.fault("B02")
async def test_a_refused_login_is_what_its_code_or_its_words_say(
    pop3_stub: Pop3Stub, capabilities: str, reply: str, verdict: type[MailbusError]
) -> None:
    pop3_stub.capabilities = capabilities
    pop3_stub.hooks["PASS"] = answering(f"{reply} {MARKER}\r\n")
    with pytest.raises(MailbusError) as refused:
        await Session.open(options(pop3_stub.port, password=MARKER), clock=SystemClock())
    assert type(refused.value) is verdict
    assert MARKER not in str(refused.value)


@pytest.mark.fault("B02")
async def test_a_refusal_that_says_nothing_is_tried_again_no_faster_than_a_wrong_password(pop3_stub: Pop3Stub) -> None:
    pop3_stub.capabilities = "USER"
    pop3_stub.hooks["PASS"] = answering("-ERR\r\n")
    with pytest.raises(Transient) as refused:
        await Session.open(options(pop3_stub.port), clock=SystemClock())
    assert (refused.value.retry_after_s or 0) >= 300


# -- another port, or another protection -------------------------------------------------------------------------


async def test_a_port_that_waits_for_tls_says_what_to_look_at(dovecot: Dovecot) -> None:
    for limits in ({"reply_s": 0.2}, {"connect_s": 0.2}):
        with pytest.raises(Transient, match="`security`: on port 995 it is `tls`"):
            await Session.open(options(dovecot.pop3s, **limits), clock=SystemClock())


async def test_a_port_without_tls_says_what_to_look_at(dovecot: Dovecot) -> None:
    secure = options(dovecot.pop3, security=Security.TLS, tls=ssl_context(dovecot))
    with pytest.raises(Transient, match=r"TLS failed.*check port and `security`"):
        await Session.open(secure, clock=SystemClock())


async def test_the_port_of_another_protocol_says_what_to_look_at(dovecot: Dovecot) -> None:
    with pytest.raises(PeerError, match=r"not a POP3 reply: \* OK .*is this a POP3 server's port"):
        await Session.open(options(dovecot.imap), clock=SystemClock())


# -- a server that cheats, or is lost --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        ("LIST", "+OK\r\n1 x\r\n.\r\n"),
        ("LIST", "+OK\r\n" + "1" * 9000 + "\r\n.\r\n"),
        ("LIST", "nonsense\r\n"),
        ("UIDL", "+OK\r\n\r\n.\r\n"),
        ("RETR", b"+OK\r\n" + b"x" * 3_000_000 + b"\r\n.\r\n"),
        ("RETR", "+OK\r\nx\r\n.\r\n+OK\r\nmore\r\n.\r\n"),
    ],
)
@pytest.mark.fault("B06")
async def test_what_a_hostile_server_says_ends_the_connection(
    pop3_stub: Pop3Stub, verb: str, reply: str | bytes
) -> None:
    pop3_stub.hooks[verb] = answering(reply)
    async with session(pop3_stub.port, message_limit=1_000_000) as opened:

        async def all_of_it() -> None:
            await listed(opened)
            await read(opened, [1])
            await read(opened, [1])

        with pytest.raises((PeerError, Transient)):
            await all_of_it()


@pytest.mark.fault("B06")
async def test_a_message_without_an_end_is_given_up(pop3_stub: Pop3Stub) -> None:
    pop3_stub.hooks["RETR"] = answering("+OK\r\nSubject: x\r\n\r\nno end\r\n")
    async with session(pop3_stub.port, reply_s=0.3) as opened:
        with pytest.raises(PeerError, match="no answer to RETR"):
            await read(opened, [1])


async def test_what_is_read_when_the_connection_is_lost_was_given(pop3_stub: Pop3Stub) -> None:
    pop3_stub.mails = [Mail(str(n), b"Subject: %d\r\n\r\n" % n) for n in range(5)]
    pop3_stub.hooks["RETR"] = cutting(lambda: pop3_stub.commands[-1] == "RETR 4")
    found: dict[int, bytes] = {}
    async with session(pop3_stub.port) as opened:
        with pytest.raises(Transient):
            await opened.read([1, 2, 3, 4, 5], found.__setitem__, whole=True)
    assert list(found) == [1, 2, 3]


@pytest.mark.fault("B01")
@pytest.mark.parametrize("reply", ["", "-ERR some deleted messages not removed\r\n"])
async def test_messages_count_as_deleted_only_with_the_ok_to_quit(pop3_stub: Pop3Stub, reply: str) -> None:
    pop3_stub.mails = [Mail("a", DOTS)]
    pop3_stub.hooks["QUIT"] = answering(reply) if reply else cutting()
    async with session(pop3_stub.port) as opened:
        assert await opened.delete([1]) == []
        with pytest.raises(Transient):
            await opened.quit()
    assert pop3_stub.uidls == ["a"]


async def test_a_command_that_is_given_up_ends_the_connection(pop3_stub: Pop3Stub) -> None:
    pop3_stub.hooks["LIST"] = answering("")
    async with session(pop3_stub.port) as opened:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await listed(opened)
        with pytest.raises(Transient):
            await listed(opened)


async def test_without_pipelining_one_command_is_out_at_a_time(pop3_stub: Pop3Stub) -> None:
    pop3_stub.capabilities = "TOP UIDL USER"
    pop3_stub.mails = [Mail(str(n), DOTS) for n in range(3)]
    waiting = 0

    async def retr(connection: Pop3Connection, arguments: str) -> bool:
        nonlocal waiting
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.reader.readexactly(1)
        waiting += 1
        return False

    pop3_stub.hooks["RETR"] = retr
    async with session(pop3_stub.port) as opened:
        assert len(await read(opened, [1, 2, 3])) == 3
    assert waiting == 3


async def test_the_delay_between_logins_is_what_the_server_says_once_it_knows_who_asks(pop3_stub: Pop3Stub) -> None:
    pop3_stub.capabilities = "USER LOGIN-DELAY(120)"
    async with session(pop3_stub.port) as opened:
        assert opened.login_delay_s == 120
    pop3_stub.capabilities = "USER LOGIN-DELAY(x)"
    async with session(pop3_stub.port) as opened:
        assert opened.login_delay_s == 0
