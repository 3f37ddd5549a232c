"""TLS and STARTTLS with an IMAP server that cheats, refuses or has a bad certificate: nothing goes in the clear."""

import asyncio
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from service.clock import SystemClock
from service.contract import Security
from service.errors import MailbusError, PeerError, Permanent, Transient
from service.imap import Session
from tests.imap.test_session import options
from tests.servers.imap_stub import Connection, ImapStub
from tests.smtp.harness import client_context, server_context, wrong_context

PASSWORD = "Pa55-marker"
IN_THE_CLEAR = ("LOGIN", "AUTHENTICATE", "EXAMINE", "ID")


async def opened(stub: ImapStub, context: ssl.SSLContext | None, **changes: Any) -> Session:
    usual = {"security": Security.STARTTLS, "tls": context, "password": PASSWORD}
    return await Session.open(options(stub.port, **(usual | changes)), clock=SystemClock())


def nothing_was_given_away(stub: ImapStub) -> bool:
    """No credentials, and no mail asked for, by this plain connection."""
    names = {line.split()[1] for line in stub.commands if " " in line}
    return PASSWORD not in " ".join(stub.commands) and not names & set(IN_THE_CLEAR)


def answering(reply: str) -> Callable[[Connection, str, str], Awaitable[bool]]:
    async def hook(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(reply.replace("TAG", tag))
        return True

    return hook


def upgrading(stub: ImapStub, context: ssl.SSLContext, after: str) -> Callable[[Connection, str, str], Awaitable[bool]]:
    """STARTTLS that is done, and other capabilities after it."""

    async def hook(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"{tag} OK go\r\n")
        await connection.writer.start_tls(context)
        stub.capabilities = after
        return True

    return hook


# -- slipped in -----------------------------------------------------------------------------------------------


@pytest.mark.fault("G01")
@pytest.mark.parametrize(
    "injected",
    [
        "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n",
        "* PREAUTH welcome\r\n",
        "* 5 EXISTS\r\n* 5 FETCH (UID 5 BODY[] {3}\r\nabc)\r\n",
        "mb2 OK CAPABILITY done\r\n",
        "* OK half a li",
        "* 1 FETCH (BODY[] {100}\r\nhalf",
        "\r\n",
        "x",
    ],
)
async def test_what_comes_with_the_answer_to_starttls_ends_the_connection(
    imap_stub: ImapStub, authority: trustme.CA, injected: str
) -> None:
    imap_stub.capabilities = "IMAP4rev1 STARTTLS"
    imap_stub.hooks["STARTTLS"] = answering(f"TAG OK go\r\n{injected}")
    with pytest.raises(PeerError, match="data after the answer to STARTTLS"):
        await opened(imap_stub, client_context(authority))
    assert nothing_was_given_away(imap_stub)


@pytest.mark.fault("G01")
async def test_what_comes_after_the_answer_to_starttls_is_no_part_of_tls(
    imap_stub: ImapStub, authority: trustme.CA
) -> None:
    async def starttls(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"{tag} OK go\r\n")
        await asyncio.sleep(0.05)
        await connection.send("* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n")
        return True

    imap_stub.capabilities = "IMAP4rev1 STARTTLS"
    imap_stub.hooks["STARTTLS"] = starttls
    with pytest.raises(Transient):
        await opened(imap_stub, client_context(authority), connect_s=3.0)
    assert nothing_was_given_away(imap_stub)


# -- skipped, missing, refused --------------------------------------------------------------------------------


@pytest.mark.fault("G02")
@pytest.mark.parametrize(
    ("greeting", "capabilities", "reply", "said"),
    [
        ("* PREAUTH welcome\r\n", "IMAP4rev1 STARTTLS", "TAG OK go\r\n", "PREAUTH"),
        ("* PREAUTH [CAPABILITY IMAP4rev1] welcome\r\n", "IMAP4rev1", "", "PREAUTH"),
        ("* OK ready\r\n", "IMAP4rev1 AUTH=PLAIN", "", "offers no STARTTLS"),
        ("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n", "IMAP4rev1 STARTTLS", "", "offers no STARTTLS"),
        ("* OK ready\r\n", "IMAP4rev1 STARTTLS", "TAG NO not here\r\n", "refuses STARTTLS: not here"),
        ("* OK ready\r\n", "IMAP4rev1 STARTTLS", "TAG BAD what?\r\n", "refuses STARTTLS: what"),
    ],
)
async def test_without_tls_nothing_goes_in_the_clear_and_the_remedy_says_tls(
    imap_stub: ImapStub, authority: trustme.CA, greeting: str, capabilities: str, reply: str, said: str
) -> None:
    imap_stub.greeting, imap_stub.capabilities = greeting, capabilities
    imap_stub.hooks["STARTTLS"] = answering(reply)
    with pytest.raises(Permanent, match=said) as refused:
        await opened(imap_stub, client_context(authority))
    assert "`security: tls`" in refused.value.remedy
    assert nothing_was_given_away(imap_stub)


@pytest.mark.fault("G02")
async def test_starttls_that_is_not_to_be_had_now_is_tried_again(imap_stub: ImapStub, authority: trustme.CA) -> None:
    imap_stub.capabilities = "IMAP4rev1 STARTTLS"
    imap_stub.hooks["STARTTLS"] = answering("TAG NO [UNAVAILABLE] try again\r\n")
    with pytest.raises(Transient, match="no STARTTLS now"):
        await opened(imap_stub, client_context(authority))
    assert nothing_was_given_away(imap_stub)


@pytest.mark.fault("G02")
async def test_what_was_offered_before_tls_counts_for_nothing(imap_stub: ImapStub, authority: trustme.CA) -> None:
    imap_stub.capabilities = "IMAP4rev1 STARTTLS AUTH=PLAIN SASL-IR ID ENABLE"
    imap_stub.hooks["STARTTLS"] = upgrading(imap_stub, server_context(authority), "IMAP4rev1 IDLE")
    session = await opened(imap_stub, client_context(authority))
    assert session.capabilities == {"IMAP4REV1", "IDLE"}
    names = [line.split()[1] for line in imap_stub.commands]
    assert names == ["CAPABILITY", "STARTTLS", "CAPABILITY", "LOGIN", "CAPABILITY"]
    session.abort()


@pytest.mark.fault("G02")
async def test_a_password_is_not_said_where_the_server_says_it_would_go_in_the_clear(imap_stub: ImapStub) -> None:
    imap_stub.capabilities = "IMAP4rev1 STARTTLS LOGINDISABLED AUTH=PLAIN SASL-IR"
    with pytest.raises(Permanent, match="LOGINDISABLED") as refused:
        await opened(imap_stub, None, security=Security.NONE)
    assert "`security: starttls`, or `tls`" in refused.value.remedy
    assert nothing_was_given_away(imap_stub)


@pytest.mark.fault("G02")
async def test_a_server_that_takes_no_password_under_tls_says_the_remedy_of_its_provider(
    imap_stub: ImapStub, authority: trustme.CA
) -> None:
    imap_stub.capabilities = "IMAP4rev1 STARTTLS AUTH=PLAIN"
    after = "IMAP4rev1 LOGINDISABLED AUTH=XOAUTH2"
    imap_stub.hooks["STARTTLS"] = upgrading(imap_stub, server_context(authority), after)
    with pytest.raises(Permanent, match="allows no password") as refused:
        await opened(imap_stub, client_context(authority), login_remedy="Microsoft wants oauth2")
    assert refused.value.remedy == "Microsoft wants oauth2"
    assert nothing_was_given_away(imap_stub)


async def test_a_server_that_takes_a_password_by_sasl_login_alone_gets_it_under_tls(
    imap_stub: ImapStub, authority: trustme.CA
) -> None:
    said: list[str] = []

    async def authenticate(connection: Connection, tag: str, arguments: str) -> bool:
        for challenge in ("VXNlciBOYW1lAA==", "UGFzc3dvcmQA"):
            await connection.send(f"+ {challenge}\r\n")
            said.append(b64decode(await connection.line()).decode())
        await connection.send(f"{tag} OK in\r\n")
        return True

    imap_stub.capabilities = "IMAP4rev1 STARTTLS LOGINDISABLED"
    after = "IMAP4rev1 LOGINDISABLED AUTH=LOGIN"
    imap_stub.hooks["STARTTLS"] = upgrading(imap_stub, server_context(authority), after)
    imap_stub.hooks["AUTHENTICATE"] = authenticate
    session = await opened(imap_stub, client_context(authority))
    assert "AUTHENTICATE LOGIN" in [line.partition(" ")[2] for line in imap_stub.commands]
    assert said == ["user", PASSWORD]
    session.abort()


async def test_sasl_login_is_not_used_in_the_clear_nor_where_there_is_better(
    imap_stub: ImapStub, authority: trustme.CA
) -> None:
    imap_stub.capabilities = "IMAP4rev1 LOGINDISABLED AUTH=LOGIN"
    with pytest.raises(Permanent, match="LOGINDISABLED"):
        await opened(imap_stub, None, security=Security.NONE)
    assert nothing_was_given_away(imap_stub)
    imap_stub.capabilities = "IMAP4rev1 STARTTLS"
    imap_stub.hooks["STARTTLS"] = upgrading(imap_stub, server_context(authority), "IMAP4rev1 AUTH=LOGIN")
    session = await opened(imap_stub, client_context(authority))
    assert any(" LOGIN " in line and "AUTHENTICATE" not in line for line in imap_stub.commands)
    session.abort()


# -- certificates ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def secured(stub: ImapStub, context: ssl.SSLContext, security: Security) -> AsyncIterator[None]:
    """The stub behind TLS from the first byte, or after STARTTLS."""
    if security is Security.STARTTLS:
        stub.capabilities = "IMAP4rev1 STARTTLS"
        stub.hooks["STARTTLS"] = upgrading(stub, context, "IMAP4rev1")
        yield
        return
    listening = await asyncio.start_server(stub.serve, "127.0.0.1", 0, ssl=context)
    stub.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield


@pytest.mark.fault("G03")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("security", [Security.TLS, Security.STARTTLS])
@pytest.mark.parametrize(
    ("wrong", "said", "verdict"),
    [
        ("host", "mismatch", Permanent),
        ("self-signed", r"self.signed|unable to get", Permanent),
        ("expired", "expired", Permanent),
        ("tls 1.1", "TLS failed|connection lost|cannot connect", MailbusError),
    ],
)
async def test_a_certificate_that_does_not_hold_is_refused_with_the_reason(
    imap_stub: ImapStub, authority: trustme.CA, security: Security, wrong: str, said: str, verdict: type[MailbusError]
) -> None:
    async with secured(imap_stub, wrong_context(authority, wrong), security):
        with pytest.raises(verdict, match=f"(?i){said}"):
            await opened(imap_stub, client_context(authority), security=security)
    assert nothing_was_given_away(imap_stub)


@pytest.mark.fault("G03")
@pytest.mark.parametrize("security", [Security.TLS, Security.STARTTLS])
async def test_an_authority_that_settings_name_is_trusted(
    imap_stub: ImapStub, authority: trustme.CA, security: Security
) -> None:
    async with secured(imap_stub, server_context(authority), security):
        session = await opened(imap_stub, client_context(authority), security=security)
        assert (await session.examine("INBOX")).exists == 0
        session.abort()
