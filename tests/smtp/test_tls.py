"""TLS, STARTTLS and AUTH with a relay: what is refused, and with which words."""

import asyncio
import base64
import ssl
from typing import Any

import pytest
import trustme

from service.contract import Security, without_credentials
from service.errors import AuthRefused, MailbusError, Permanent
from service.smtp import LoginWanted, RelayUnreachable, Timeouts, TlsWanted
from tests.servers.smtp import RelayMaker, ScriptedRelay
from tests.smtp.harness import client_context, deliver, options, server_context, wrong_context


async def test_tls_from_the_first_byte_and_login(make_relay: RelayMaker, authority: trustme.CA) -> None:
    server = await make_relay(tls=server_context(authority), password="right-Pa55")
    login: dict[str, Any] = {"login": True, "username": "u", "password": "right-Pa55"}
    await deliver(server, security=Security.TLS, tls=client_context(authority), **login)
    assert len(server.messages) == 1


async def test_starttls_and_login(make_relay: RelayMaker, authority: trustme.CA) -> None:
    server = await make_relay(starttls=server_context(authority), password="right-Pa55")
    login: dict[str, Any] = {"login": True, "username": "u", "password": "right-Pa55"}
    await deliver(server, security=Security.STARTTLS, tls=client_context(authority), **login)
    assert len(server.messages) == 1
    assert server.logins == 1


@pytest.mark.fault("G02")
async def test_starttls_that_is_not_offered_is_never_done_without(relay: ScriptedRelay) -> None:
    with pytest.raises(Permanent, match="STARTTLS") as refused:
        await deliver(relay, security=Security.STARTTLS)
    assert "security: tls" in refused.value.remedy
    assert not relay.messages


class CheatingRelay:
    """Speaks by a script, before TLS and after it; `said` is all that came in the clear."""

    def __init__(self, answer: bytes, context: ssl.SSLContext | None = None, after: bytes = b"250 x\r\n") -> None:
        self.answer, self.context, self.after = answer, context, after
        self.said: list[bytes] = []
        self.under_tls: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 x\r\n")
        secure = False
        while line := await reader.readline():
            (self.under_tls if secure else self.said).append(line)
            if line.startswith(b"EHLO"):
                writer.write(self.after if secure else b"250-x\r\n250-AUTH PLAIN LOGIN\r\n250 STARTTLS\r\n")
            elif line.startswith(b"STARTTLS"):
                writer.write(self.answer)
                if self.context is not None:
                    await writer.start_tls(self.context)
                    secure = True
            else:
                writer.write(b"235 2.7.0 in\r\n" if line.startswith(b"AUTH") else b"250 OK\r\n")
        writer.close()


async def tried(server: CheatingRelay, authority: trustme.CA) -> MailbusError:
    """What a delivery with a password by STARTTLS ends with."""
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    login: dict[str, Any] = {"login": True, "username": "u", "password": "marker-Pa55"}
    async with listening:
        with pytest.raises(MailbusError) as failed:
            await deliver(server, security=Security.STARTTLS, tls=client_context(authority), **login)  # type: ignore[arg-type]
    return failed.value


@pytest.mark.fault("G02")
@pytest.mark.parametrize(
    ("answer", "verdict"), [(b"554 5.7.0 no\r\n", Permanent), (b"454 4.7.0 not now\r\n", RelayUnreachable)]
)
async def test_starttls_that_is_refused_is_never_done_without(
    authority: trustme.CA, answer: bytes, verdict: type[MailbusError]
) -> None:
    server = CheatingRelay(answer)
    error = await tried(server, authority)
    assert type(error) is verdict
    assert verdict is not Permanent or "security: tls" in error.remedy
    assert not any(line.startswith((b"AUTH", b"MAIL")) for line in server.said)


@pytest.mark.fault("G01")
@pytest.mark.parametrize("injected", [b"250-x\r\n250 AUTH PLAIN\r\n", b"250 OK\r\n", b"2", b"\r\n"])
async def test_what_comes_with_the_answer_to_starttls_ends_the_connection(
    authority: trustme.CA, injected: bytes
) -> None:
    server = CheatingRelay(b"220 go\r\n" + injected, server_context(authority))
    error = await tried(server, authority)
    assert isinstance(error, RelayUnreachable)
    assert "more than the reply" in error.what
    assert not server.under_tls


@pytest.mark.fault("G02")
async def test_what_was_offered_before_tls_counts_for_nothing(authority: trustme.CA) -> None:
    server = CheatingRelay(b"220 go\r\n", server_context(authority))
    error = await tried(server, authority)
    assert type(error) is Permanent
    assert "no way to log in" in error.what
    assert [line[:4] for line in server.under_tls] == [b"EHLO"]


@pytest.mark.fault("G03")
@pytest.mark.parametrize("security", [Security.TLS, Security.STARTTLS])
@pytest.mark.parametrize(
    ("wrong", "said"), [("host", "match"), ("self-signed", "self.signed|unable to get"), ("expired", "expired")]
)
async def test_a_certificate_that_does_not_hold_is_refused_with_the_reason(
    make_relay: RelayMaker, authority: trustme.CA, security: Security, wrong: str, said: str
) -> None:
    context = wrong_context(authority, wrong)
    server = await make_relay(**{"tls" if security is Security.TLS else "starttls": context})
    with pytest.raises(Permanent, match=f"(?i){said}"):
        await deliver(server, security=security, tls=client_context(authority))
    assert not server.messages


@pytest.mark.fault("G03")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_1_1_is_refused(make_relay: RelayMaker, authority: trustme.CA) -> None:
    context = server_context(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    server = await make_relay(tls=context)
    # aiosmtpd's loop resets the connection where other servers send an alert: either way nothing is said in TLS 1.1.
    with pytest.raises((Permanent, RelayUnreachable)):
        await deliver(server, security=Security.TLS, tls=client_context(authority))
    assert not server.messages


async def test_clear_text_where_tls_was_wanted_is_refused(relay: ScriptedRelay, authority: trustme.CA) -> None:
    with pytest.raises((Permanent, RelayUnreachable)):
        await deliver(relay, security=Security.TLS, tls=client_context(authority), timeouts=Timeouts(connect_s=2))
    assert not relay.messages


async def test_a_refused_password_is_tried_once(make_relay: RelayMaker) -> None:
    server = await make_relay(password="right-Pa55")
    with pytest.raises(AuthRefused) as caught:
        await deliver(server, login=True, username="u", password="wrong-Pa55")
    assert server.logins == 1
    assert "Pa55" not in repr(caught.value) + str(caught.value) + repr(options(server, password="wrong-Pa55"))


@pytest.mark.fault("G04")
def test_a_server_that_repeats_the_credentials_shows_nobody_them() -> None:
    username, password = "me@example.com", "marker-Pa55"
    plain = base64.b64encode(f"\0{username}\0{password}".encode()).decode()
    said = f"535 no {password} for {username}: {plain} {base64.b64encode(password.encode()).decode()}"
    assert without_credentials(said, username, password) == "535 no *** for ***: *** ***"


async def test_454_says_nothing_of_the_password(make_relay: RelayMaker) -> None:
    server = await make_relay(password="x", auth_reply="454 4.7.0 Temporary authentication failure")
    with pytest.raises(RelayUnreachable):
        await deliver(server, login=True, username="u", password="x")


@pytest.mark.fault("E08")
@pytest.mark.parametrize(
    ("said", "verdict", "remedy"),
    [
        ("530 5.7.0 Authentication required", LoginWanted, "login: true"),
        ("530 5.7.0 Must issue a STARTTLS command first", TlsWanted, "security: starttls"),
    ],
)
async def test_530_is_the_accounts_affair_and_no_word_about_the_mail(
    relay: ScriptedRelay, said: str, verdict: type[MailbusError], remedy: str
) -> None:
    relay.script.mail = said
    with pytest.raises(MailbusError) as caught:
        await deliver(relay)
    assert type(caught.value) is verdict
    assert isinstance(caught.value, AuthRefused) == (verdict is LoginWanted)
    assert remedy in caught.value.remedy


@pytest.mark.fault("G04")
@pytest.mark.parametrize("words", ["Authentication required", "Must issue a STARTTLS command first"])
async def test_530_that_repeats_the_envelope_or_the_login_shows_neither(relay: ScriptedRelay, words: str) -> None:
    relay.script.mail = f"530 5.7.0 {words}: <me@x>, a@x (user-4711, marker-Pa55)"
    with pytest.raises(MailbusError) as caught:
        await deliver(relay, username="user-4711", password="marker-Pa55")
    assert f"530 5.7.0 {words}: <***>, *** (***, ***)" in caught.value.what


async def test_a_relay_without_auth_says_the_remedy(relay: ScriptedRelay) -> None:
    with pytest.raises(Permanent) as caught:
        await deliver(relay, login=True, username="u", password="x")
    assert "login: false" in caught.value.remedy


async def test_a_relay_that_is_down_is_unreachable(relay: ScriptedRelay) -> None:
    await relay.stop()
    with pytest.raises(RelayUnreachable):
        await deliver(relay)
