"""TLS and STLS with a POP3 server that cheats, refuses or has a bad certificate: nothing goes in the clear."""

import ssl
from typing import Any

import pytest
import trustme

from service.clock import SystemClock
from service.contract import Security
from service.errors import MailbusError, PeerError, Permanent, Transient
from service.pop3 import Session
from tests.pop3.harness import answering, options
from tests.servers.pop3_stub import Pop3Connection, Pop3Stub
from tests.servers.scripted import serving
from tests.smtp.harness import client_context, server_context, wrong_context

PASSWORD = "Pa55-marker"


async def opened(stub: Pop3Stub, context: ssl.SSLContext | None, **changes: Any) -> Session:
    usual = {"security": Security.STARTTLS, "tls": context, "password": PASSWORD}
    return await Session.open(options(stub.port, **(usual | changes)), clock=SystemClock())


def nothing_was_given_away(stub: Pop3Stub) -> bool:
    """No credentials over this plain connection."""
    return not {line.split()[0] for line in stub.commands if line} & {"USER", "PASS", "AUTH", "APOP"}


@pytest.mark.fault("G01")
@pytest.mark.parametrize(
    "injected", ["+OK\r\n.\r\n", "+OK\r\nUSER\r\n.\r\n+OK\r\n+OK\r\n", "+OK half a li", "\r\n", "x"]
)
async def test_what_comes_with_the_answer_to_stls_ends_the_connection(
    pop3_stub: Pop3Stub, authority: trustme.CA, injected: str
) -> None:
    pop3_stub.capabilities = "STLS USER"
    pop3_stub.hooks["STLS"] = answering(f"+OK go\r\n{injected}")
    with pytest.raises(PeerError, match="data after the answer to STLS"):
        await opened(pop3_stub, client_context(authority))
    assert nothing_was_given_away(pop3_stub)


@pytest.mark.fault("G02")
async def test_a_server_without_stls_is_not_logged_in_to(pop3_stub: Pop3Stub, authority: trustme.CA) -> None:
    with pytest.raises(Permanent, match="offers no STLS"):
        await opened(pop3_stub, client_context(authority))
    assert nothing_was_given_away(pop3_stub)


@pytest.mark.fault("G02")
@pytest.mark.parametrize(("reply", "verdict"), [("-ERR no", Permanent), ("-ERR [SYS/TEMP] busy", Transient)])
async def test_a_server_that_refuses_stls_is_not_logged_in_to(
    pop3_stub: Pop3Stub, authority: trustme.CA, reply: str, verdict: type[Exception]
) -> None:
    pop3_stub.hooks["CAPA"] = answering("-ERR what?\r\n")
    pop3_stub.hooks["STLS"] = answering(f"{reply}\r\n")
    with pytest.raises(verdict):
        await opened(pop3_stub, client_context(authority))
    assert nothing_was_given_away(pop3_stub)


@pytest.mark.fault("G02")
async def test_capabilities_from_before_tls_count_for_nothing(pop3_stub: Pop3Stub, authority: trustme.CA) -> None:
    # What somebody in the middle would say before TLS, to be told the password otherwise.
    pop3_stub.capabilities = "STLS USER SASL(XOAUTH2)"
    pop3_stub.tls = server_context(authority)

    async def stls(connection: Pop3Connection, arguments: str) -> bool:
        pop3_stub.capabilities = "SASL(PLAIN)"
        return False

    pop3_stub.hooks["STLS"] = stls
    session = await opened(pop3_stub, client_context(authority), password="secret")
    assert session.capabilities == {"SASL": ("PLAIN",)}
    assert any(line.startswith("AUTH PLAIN") for line in pop3_stub.commands)
    await session.leave()


@pytest.mark.fault("G02")
async def test_a_server_that_takes_no_password_in_the_clear_is_told_none(pop3_stub: Pop3Stub) -> None:
    pop3_stub.capabilities = "STLS TOP"
    with pytest.raises(Permanent, match="no password in the clear"):
        await opened(pop3_stub, None, security=Security.NONE)
    assert nothing_was_given_away(pop3_stub)


@pytest.mark.fault("G03")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("security", [Security.TLS, Security.STARTTLS])
@pytest.mark.parametrize(
    ("wrong", "said", "verdict"),
    [
        ("host", "certificate is refused: .*mismatch", Permanent),
        ("self-signed", "certificate is refused: .*(self.signed|unable to get)", Permanent),
        ("expired", "certificate is refused: .*expired", Permanent),
        ("tls 1.1", "TLS failed|connection lost|cannot connect", MailbusError),
    ],
)
async def test_a_certificate_that_does_not_hold_is_refused_with_the_reason(
    authority: trustme.CA, security: Security, wrong: str, said: str, verdict: type[MailbusError]
) -> None:
    stub = Pop3Stub(capabilities="STLS USER", tls=wrong_context(authority, wrong))
    async with serving(stub, stub.tls if security is Security.TLS else None):
        with pytest.raises(verdict, match=f"(?i){said}"):
            await opened(stub, client_context(authority), security=security)
        assert nothing_was_given_away(stub)
