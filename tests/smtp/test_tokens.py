"""AUTH with a token: which mechanism, what is said, how an error is answered, one renewal, and what is shown."""

import asyncio
from typing import Any

import pytest

from service.clock import SystemClock
from service.errors import AuthRefused, Permanent
from service.smtp import Relay, RelayUnreachable
from tests.oauth.harness import answering, tokens
from tests.servers.oauth import OAuthServer
from tests.servers.smtp import RelayMaker
from tests.servers.smtp_tokens import TokenWatch
from tests.smtp.harness import MESSAGE, Dot, deliver, options

MARKER = "marker"
USER = "me@example.com"


def login(source: Any, **more: Any) -> dict[str, Any]:
    return {"login": True, "username": USER, "password": "", "tokens": source} | more


async def test_oauthbearer_is_preferred_and_delivers(make_relay: RelayMaker, oauth: OAuthServer) -> None:
    watch = TokenWatch(oauth.tokens)
    server = await make_relay(password="x", handler=watch.handler)
    await deliver(server, **login(tokens(oauth)))
    assert len(server.messages) == 1
    where = f"host=127.0.0.1\x01port={server.port}"
    assert watch.said == [f"OAUTHBEARER n,a={USER},\x01{where}\x01auth=Bearer access-marker-1\x01\x01"]


async def test_xoauth2_is_said_where_nothing_better_is_offered(make_relay: RelayMaker, oauth: OAuthServer) -> None:
    watch = TokenWatch(oauth.tokens, ("XOAUTH2",))
    server = await make_relay(password="x", handler=watch.handler)
    await deliver(server, **login(tokens(oauth)))
    assert watch.said == [f"XOAUTH2 user={USER}\x01auth=Bearer access-marker-1\x01\x01"]
    assert watch.with_command == [True]


async def test_a_long_token_goes_in_a_line_of_its_own(make_relay: RelayMaker, oauth: OAuthServer) -> None:
    token = "long" * 150  # aiosmtpd reads 1,001 bytes of an answer, in base64
    oauth.hook = answering(200, {"access_token": token, "token_type": "bearer", "expires_in": 3600})
    watch = TokenWatch({token: USER})
    server = await make_relay(password="x", handler=watch.handler)
    await deliver(server, **login(tokens(oauth)))
    assert watch.with_command == [False]
    assert len(server.messages) == 1


@pytest.mark.fault("E08")
@pytest.mark.fault("G05")
async def test_a_token_that_was_taken_back_is_renewed_once_and_the_mail_goes(
    make_relay: RelayMaker, oauth: OAuthServer
) -> None:
    watch = TokenWatch(oauth.tokens)
    server = await make_relay(password="x", handler=watch.handler)
    source = tokens(oauth)
    await source.get()
    oauth.void()
    await deliver(server, **login(source))
    assert len(server.messages) == 1
    assert len(oauth.asked) == 2


@pytest.mark.fault("E08")
@pytest.mark.parametrize(
    ("mechanism", "farewell", "challenges"),
    [("OAUTHBEARER", b"\x01", True), ("XOAUTH2", b"", True), ("XOAUTH2", b"", False)],
)
async def test_a_token_that_is_refused_twice_is_as_a_wrong_password(
    make_relay: RelayMaker, oauth: OAuthServer, mechanism: str, farewell: bytes, challenges: bool
) -> None:
    watch = TokenWatch({}, (mechanism,), challenges=challenges)
    server = await make_relay(password="x", handler=watch.handler)
    with pytest.raises(AuthRefused) as refused:
        await deliver(server, **login(tokens(oauth), login_remedy="Gmail wants the scope"))
    assert len(watch.said) == len(oauth.asked) == 2
    assert watch.farewells == ([farewell] * 2 if challenges else [])
    assert ("scope https://mail.google.com/" in refused.value.what) is challenges
    assert refused.value.remedy == "Gmail wants the scope"
    assert MARKER not in str(refused.value)
    assert not server.messages


async def test_a_relay_that_takes_no_tokens_is_degraded_with_the_remedy(
    make_relay: RelayMaker, oauth: OAuthServer
) -> None:
    server = await make_relay(password="x")
    with pytest.raises(Permanent, match="takes no OAuth 2 tokens") as refused:
        await deliver(server, **login(tokens(oauth)))
    assert type(refused.value) is Permanent


async def test_where_no_token_is_to_be_had_the_relay_counts_as_away(make_relay: RelayMaker, oauth: OAuthServer) -> None:
    oauth.hook = answering(503, "", Retry_After="7")
    server = await make_relay(password="x")
    with pytest.raises(RelayUnreachable, match="gives nothing now: 503") as failed:
        await deliver(server, **login(tokens(oauth)))
    assert failed.value.retry_after_s == 7
    assert server.connections == 0


@pytest.mark.fault("E08")
async def test_four_deliveries_with_a_wrong_password_are_one_try(make_relay: RelayMaker) -> None:
    server = await make_relay(password="right-Pa55")
    relay = Relay(options(server, login=True, username="u", password="wrong-Pa55"), SystemClock())
    tries = (relay.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot()) for _ in range(4))
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert all(isinstance(one, AuthRefused) for one in found)
    assert server.logins == 1
    with pytest.raises(AuthRefused):
        await relay.probe()
    assert server.logins == 1
