"""TLS, STARTTLS and AUTH with a relay: what is refused, and with which words."""

import base64
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme

from service.contract import Security, without_credentials
from service.errors import AuthRefused, Permanent
from service.smtp import RelayUnreachable, Timeouts
from tests.servers.smtp import RelayMaker, ScriptedRelay
from tests.smtp.harness import client_context, deliver, options, server_context


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


async def test_starttls_that_is_not_offered_is_never_done_without(relay: ScriptedRelay) -> None:
    with pytest.raises(Permanent, match="STARTTLS"):
        await deliver(relay, security=Security.STARTTLS)
    assert not relay.messages


@pytest.mark.fault("G03")
@pytest.mark.parametrize("security", [Security.TLS, Security.STARTTLS])
@pytest.mark.parametrize(
    ("wrong", "said"), [("host", "match"), ("self-signed", "self.signed|unable to get"), ("expired", "expired")]
)
async def test_a_certificate_that_does_not_hold_is_refused_with_the_reason(
    make_relay: RelayMaker, authority: trustme.CA, security: Security, wrong: str, said: str
) -> None:
    if wrong == "host":
        context = server_context(authority, "other.example")
    elif wrong == "expired":
        context = server_context(authority, not_after=datetime.now(UTC) - timedelta(days=1))
    else:
        context = server_context(trustme.CA())
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


async def test_a_relay_without_auth_says_the_remedy(relay: ScriptedRelay) -> None:
    with pytest.raises(Permanent) as caught:
        await deliver(relay, login=True, username="u", password="x")
    assert "login: false" in caught.value.remedy


async def test_a_relay_that_is_down_is_unreachable(relay: ScriptedRelay) -> None:
    await relay.stop()
    with pytest.raises(RelayUnreachable):
        await deliver(relay)
