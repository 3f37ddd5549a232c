"""Logging in with a token: on real Dovecot, which asks a real endpoint whether it is good, and on a scripted server."""

import json
from base64 import b64decode, b64encode

import pytest

from service.clock import SystemClock
from service.contract import Security
from service.errors import AuthRefused, Permanent, Transient
from service.imap import Session
from service.oauth import Tokens
from tests.imap.test_session import options, session
from tests.oauth.harness import tokens
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.oauth import OAuthMaker, OAuthServer

MARKER = "marker"


async def test_a_token_opens_a_mailbox_of_dovecot(
    dovecot_with_tokens: Dovecot, oauth: OAuthServer, prefix: str
) -> None:
    oauth.user = prefix
    await dovecot_with_tokens.append(prefix, [b"Subject: x\r\n\r\nx\r\n"])
    async with session(dovecot_with_tokens.imap, username=prefix, password="", tokens=tokens(oauth)) as opened:
        assert (await opened.examine("INBOX")).exists == 1


@pytest.mark.fault("G05")
async def test_a_token_that_was_taken_back_is_renewed_once_and_the_login_tried_again(
    dovecot_with_tokens: Dovecot, oauth: OAuthServer, prefix: str
) -> None:
    oauth.user = prefix
    source = tokens(oauth)
    await source.get()
    oauth.void()
    async with session(dovecot_with_tokens.imap, username=prefix, password="", tokens=source) as opened:
        await opened.examine("INBOX")
    assert len(oauth.asked) == 2


@pytest.mark.fault("G05")
async def test_a_token_that_is_refused_twice_is_as_a_wrong_password(
    dovecot_with_tokens: Dovecot, oauth: OAuthServer, prefix: str
) -> None:
    oauth.user = "somebody else"
    source = tokens(oauth)
    with pytest.raises(AuthRefused) as refused:
        await Session.open(
            options(dovecot_with_tokens.imap, username=prefix, password="", tokens=source), clock=SystemClock()
        )
    assert len(oauth.asked) == 2
    assert MARKER not in str(refused.value)


# -- on a server that does it on command ----------------------------------------------------------------------


class Authenticator:
    """AUTHENTICATE of the stub: what the client said, and an error as a provider says it."""

    def __init__(self, stub: ImapStub, capabilities: str, *, good: str = "") -> None:
        stub.capabilities = f"IMAP4rev1 {capabilities}"
        stub.hooks["AUTHENTICATE"] = self
        self.good = good
        self.said: list[str] = []
        self.farewells: list[str] = []
        self.repeats = False

    async def __call__(self, connection: Connection, tag: str, arguments: str) -> bool:
        mechanism, _, initial = arguments.partition(" ")
        if not initial:
            await connection.send("+ \r\n")
            initial = await connection.line()
        said = b64decode(initial).decode()
        self.said.append(f"{mechanism} {said}")
        if self.good and f"Bearer {self.good}\x01" in said:
            await connection.send(f"{tag} OK in\r\n")
            return True
        error = {"status": "invalid_token", "scope": "https://mail.google.com/", "schemes": "bearer"}
        await connection.send(f"+ {b64encode(json.dumps(error).encode()).decode()}\r\n")
        self.farewells.append(await connection.line())
        echoed = f"{initial} {said}" if self.repeats else ""
        await connection.send(f"{tag} NO [AUTHENTICATIONFAILED] no {echoed}\r\n")
        return True


async def opened(stub: ImapStub, source: Tokens, **changes: object) -> Session:
    return await Session.open(
        options(stub.port, username="me,=@example.com", password="", tokens=source, **changes), clock=SystemClock()
    )


@pytest.mark.parametrize("with_ir", [True, False])
async def test_oauthbearer_is_preferred_and_says_whom_where_and_the_token(
    imap_stub: ImapStub, oauth: OAuthServer, with_ir: bool
) -> None:
    offered = "AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER" + (" SASL-IR" if with_ir else "")
    server = Authenticator(imap_stub, offered, good="access-marker-1")
    (await opened(imap_stub, tokens(oauth))).abort()
    where = f"host=127.0.0.1\x01port={imap_stub.port}"
    assert server.said == [f"OAUTHBEARER n,a=me=2C=3D@example.com,\x01{where}\x01auth=Bearer access-marker-1\x01\x01"]


async def test_xoauth2_is_said_where_nothing_better_is_offered(imap_stub: ImapStub, oauth: OAuthServer) -> None:
    server = Authenticator(imap_stub, "AUTH=PLAIN AUTH=XOAUTH2 SASL-IR", good="access-marker-1")
    (await opened(imap_stub, tokens(oauth))).abort()
    assert server.said == ["XOAUTH2 user=me,=@example.com\x01auth=Bearer access-marker-1\x01\x01"]


@pytest.mark.fault("G05")
@pytest.mark.parametrize(("offered", "farewell"), [("AUTH=OAUTHBEARER", "AQ=="), ("AUTH=XOAUTH2", "")])
@pytest.mark.parametrize("with_ir", [" SASL-IR", ""])
async def test_an_error_is_answered_as_the_mechanism_wants_and_shown_with_the_scope(
    imap_stub: ImapStub, oauth: OAuthServer, offered: str, farewell: str, with_ir: str
) -> None:
    server = Authenticator(imap_stub, offered + with_ir)
    server.repeats = True
    with pytest.raises(AuthRefused, match=r"status invalid_token, scope https://mail.google.com/") as refused:
        await opened(imap_stub, tokens(oauth), login_remedy="Gmail wants the scope")
    assert server.farewells == [farewell, farewell]
    assert refused.value.remedy == "Gmail wants the scope"
    assert MARKER not in str(refused.value)
    assert not any("LOGIN" in line or "PLAIN" in line for line in imap_stub.commands)


async def test_a_server_that_takes_no_tokens_is_degraded_with_the_remedy(
    imap_stub: ImapStub, oauth: OAuthServer
) -> None:
    imap_stub.capabilities = "IMAP4rev1 AUTH=PLAIN"
    with pytest.raises(Permanent, match="takes no OAuth 2 tokens") as refused:
        await opened(imap_stub, tokens(oauth))
    assert type(refused.value) is Permanent


async def test_where_no_token_is_to_be_had_no_connection_is_made(imap_stub: ImapStub, make_oauth: OAuthMaker) -> None:
    oauth = await make_oauth(refresh_token="another")
    with pytest.raises(AuthRefused, match="invalid_grant"):
        await opened(imap_stub, tokens(oauth, refresh_token="void"))
    assert imap_stub.commands == []


@pytest.mark.fault("A19")
async def test_a_throttled_login_waits_as_told(imap_stub: ImapStub) -> None:
    async def login(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"{tag} BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds\r\n")
        return True

    imap_stub.hooks["LOGIN"] = login
    with pytest.raises(Transient) as refused:
        await Session.open(options(imap_stub.port, security=Security.NONE), clock=SystemClock())
    assert refused.value.retry_after_s == pytest.approx(299.961)
