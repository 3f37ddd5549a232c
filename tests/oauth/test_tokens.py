"""Tokens of a real endpoint over TLS: one renewal for all, early, told verdicts apart, nothing shown, nothing lost."""

import asyncio
import json
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from service.errors import AuthRefused, MailbusError, PeerError, Permanent, Transient
from service.oauth import Grant, read_key
from tests.oauth.harness import MARKER, answering, options, shown, tokens
from tests.servers.clock import FakeClock
from tests.servers.oauth import OAuthMaker, OAuthServer

# -- grants ---------------------------------------------------------------------------------------------------


async def test_a_refresh_token_gives_an_access_token(oauth: OAuthServer) -> None:
    assert await tokens(oauth).get() in oauth.tokens
    assert oauth.asked == [
        {
            "grant_type": "refresh_token",
            "refresh_token": "refresh-marker-0",
            "client_id": "client",
            "client_secret": "client-secret-marker",
            "scope": "mail",
        }
    ]


async def test_client_credentials_give_an_access_token(oauth: OAuthServer) -> None:
    assert await tokens(oauth, grant=Grant.CLIENT_CREDENTIALS).get() in oauth.tokens
    assert oauth.asked[0]["grant_type"] == "client_credentials"
    assert "refresh_token" not in oauth.asked[0]


@pytest.fixture(scope="session")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem_of(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("google", [True, False])
async def test_a_service_account_signs_for_a_user(oauth: OAuthServer, key: rsa.RSAPrivateKey, google: bool) -> None:
    said = {"private_key": pem_of(key).decode(), "private_key_id": "k1", "client_email": "robot@example.com"}
    content = json.dumps(said | {"token_uri": oauth.url}).encode() if google else pem_of(key)
    oauth.public_key = key.public_key()
    read = read_key("key", content)
    if google:
        assert (read.id, read.client_id, read.token_url) == ("k1", "robot@example.com", oauth.url)
    clock = FakeClock()
    clock.now = lambda: datetime.now(UTC)  # type: ignore[method-assign]  # the endpoint looks at the clock
    source = tokens(
        oauth, clock, grant=Grant.JWT_BEARER, key=read, client_id="robot@example.com", subject="me@example.com"
    )
    assert await source.get() in oauth.tokens
    (claims,) = oauth.claims
    assert {name: claims[name] for name in ("iss", "sub", "aud", "scope", "alg")} == {
        "iss": "robot@example.com", "sub": "me@example.com", "aud": oauth.url, "scope": "mail", "alg": "RS256"
    }  # fmt: skip
    assert claims.get("kid") == ("k1" if google else None)


@pytest.mark.fault("G04")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{broken marker", "no JSON"),
        (b'{"private_key": "marker"}', "no key"),
        (b"-----BEGIN PRIVATE KEY-----\nmarker\n-----END PRIVATE KEY-----", "no key"),
        (b"", "no key"),
    ],
)
def test_a_key_that_is_none_is_named_and_not_shown(content: bytes, said: str) -> None:
    with pytest.raises(Permanent, match=said) as failed:
        read_key("key", content)
    assert MARKER not in shown(failed.value)


# -- one for all, early ---------------------------------------------------------------------------------------


@pytest.mark.fault("G05")
async def test_a_hundred_tasks_that_meet_an_expired_token_make_one_renewal(oauth: OAuthServer) -> None:
    clock = FakeClock()
    source = tokens(oauth, clock)
    first = await source.get()
    await clock.advance(3700)
    oauth.slow_s = 0.05
    found = await asyncio.gather(*(source.get() for _ in range(100)))
    assert len(set(found)) == 1
    assert found[0] != first
    assert len(oauth.asked) == 2


@pytest.mark.fault("G05")
async def test_a_hundred_tasks_that_were_refused_the_same_token_make_one_renewal(oauth: OAuthServer) -> None:
    source = tokens(oauth)
    refused = await source.get()
    found = await asyncio.gather(*(source.renew(refused) for _ in range(100)))
    assert len(set(found)) == 1
    assert found[0] != refused
    assert len(oauth.asked) == 2


async def test_a_token_is_renewed_before_its_end_and_not_sooner(oauth: OAuthServer) -> None:
    clock = FakeClock()
    source = tokens(oauth, clock)
    first = await source.get()
    await clock.advance(3290)
    assert await source.get() == first
    await clock.advance(20)
    assert await source.get() != first


async def test_while_the_old_token_is_good_an_endpoint_that_is_away_stops_nobody(oauth: OAuthServer) -> None:
    clock = FakeClock()
    source = tokens(oauth, clock)
    first = await source.get()
    oauth.hook = answering(503, "")
    await clock.advance(3400)
    assert await source.get() == first
    await clock.advance(300)
    with pytest.raises(Transient):
        await source.get()


@pytest.mark.parametrize(
    ("told", "life_s"), [(3600, 3600), ("3600", 3600), (None, 600), (0, 600), ("soon", 600), (10**9, 24 * 3600)]
)
async def test_how_long_a_token_is_good(oauth: OAuthServer, told: object, life_s: float) -> None:
    oauth.life_s = told
    source = tokens(oauth)
    await source.get()
    assert source.left_s == life_s


# -- verdicts -------------------------------------------------------------------------------------------------


@pytest.mark.fault("G05")
@pytest.mark.parametrize("code", ["invalid_grant", "invalid_client", "unauthorized_client", "invalid_scope"])
async def test_a_refusal_is_said_with_its_remedy_and_tried_again_after_five_minutes(
    oauth: OAuthServer, code: str
) -> None:
    clock = FakeClock()
    oauth.hook = answering(400, {"error": code, "error_description": "AADSTS70000 refresh-marker-0 is no good"})
    source = tokens(oauth, clock, remedy="ask the administrator")
    with pytest.raises(AuthRefused, match=f"{code} AADSTS70000") as failed:
        await source.get()
    assert "ask the administrator" in failed.value.remedy
    assert MARKER not in shown(failed.value)
    for _ in range(3):
        with pytest.raises(AuthRefused, match=code):
            await source.get()
    assert len(oauth.asked) == 1
    oauth.hook = None
    await clock.advance(300)
    assert await source.get() in oauth.tokens


@pytest.mark.fault("G05")
@pytest.mark.parametrize(
    ("status", "headers", "pause_s"),
    [
        (429, {"Retry_After": "120"}, 120),
        (503, {"Retry_After": format_datetime(datetime(2026, 11, 24, 0, 10, tzinfo=UTC), usegmt=True)}, 600),
        (500, {}, None),
        (503, {"Retry_After": "soon"}, None),
        (503, {"Retry_After": "²"}, None),
    ],
)
async def test_an_endpoint_that_is_busy_is_asked_again_when_it_says(
    oauth: OAuthServer, status: int, headers: dict[str, str], pause_s: float | None
) -> None:
    clock = FakeClock()
    oauth.hook = answering(status, "busy", **headers)
    source = tokens(oauth, clock)
    with pytest.raises(Transient) as failed:
        await source.get()
    assert failed.value.retry_after_s == pause_s
    oauth.hook = None
    with pytest.raises(Transient):
        await source.get()
    assert len(oauth.asked) == 1
    await clock.advance(pause_s or 1)
    assert await source.get() in oauth.tokens


@pytest.mark.fault("G05")
async def test_a_redirect_is_not_followed(oauth: OAuthServer) -> None:
    oauth.hook = answering(307, "", Location=f"https://127.0.0.1:{oauth.port}/elsewhere")
    with pytest.raises(Permanent, match="elsewhere"):
        await tokens(oauth).get()
    assert oauth.elsewhere == []


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, "<html>", PeerError),
        (200, {}, PeerError),
        (200, {"access_token": "a b"}, PeerError),
        (200, {"access_token": "x" * 9000}, PeerError),
        (200, {"access_token": "x\r\nLOGOUT"}, PeerError),
        (200, {"access_token": "x", "refresh_token": "a\nb"}, PeerError),
        (200, {"access_token": "x", "token_type": "mac"}, Permanent),
        (200, "x" * 300_000, PeerError),
        (404, "", Permanent),
        (400, {"error": "temporarily_unavailable"}, Transient),
        (400, {"error": ["odd"]}, Permanent),
    ],
)
async def test_an_answer_that_is_none_has_a_verdict(
    oauth: OAuthServer, status: int, body: object, verdict: type[MailbusError]
) -> None:
    oauth.hook = answering(status, body)
    with pytest.raises(verdict) as failed:
        await tokens(oauth).get()
    assert type(failed.value) is verdict


async def test_silence_and_absence_are_transient(oauth: OAuthServer) -> None:
    oauth.slow_s = 30
    with pytest.raises(Transient, match="no answer"):
        await tokens(oauth, timeout_s=0.2).get()
    with pytest.raises(Transient, match="cannot be reached"):
        await tokens(oauth, token_url="https://127.0.0.1:9/token").get()


@pytest.mark.fault("G03")
@pytest.mark.parametrize("wrong", ["host", "authority", "expired"])
async def test_an_endpoint_whose_certificate_does_not_hold_gets_no_secret(
    make_oauth: OAuthMaker, authority: trustme.CA, wrong: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    signer = trustme.CA() if wrong == "authority" else authority
    name = "other.example" if wrong == "host" else "127.0.0.1"
    ends = datetime.now(UTC) + timedelta(days=-1 if wrong == "expired" else 1)
    signer.issue_cert(name, not_after=ends).configure_cert(context)
    server = await make_oauth(context)
    with pytest.raises(Permanent, match="certificate is refused"):
        await tokens(server).get()
    assert server.asked == []


# -- nothing is shown -----------------------------------------------------------------------------------------


@pytest.mark.fault("G04")
async def test_nothing_shows_a_secret(
    make_oauth: OAuthMaker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    oauth = await make_oauth(rotates=True)
    file = tmp_path / "refresh"
    file.write_text(oauth.refresh_token)
    source = tokens(oauth, refresh_file=file)
    seen = [repr(options(oauth)), repr(source), str(source)]
    await source.renew(await source.get())

    async def repeat(request: web.Request) -> web.StreamResponse:
        told = " ".join(oauth.asked[-1].values())
        return web.json_response({"error": "invalid_grant", "error_description": told}, status=400)

    oauth.hook = repeat
    with pytest.raises(AuthRefused) as failed:
        await source.renew(await source.get())
    out, err = capfd.readouterr()
    assert MARKER not in "".join([*seen, shown(failed.value), out, err])
