"""A real token endpoint over TLS: gives tokens, rotates refresh tokens, checks assertions, misbehaves on command.

It also answers Dovecot's question whether a token is good (`/tokeninfo`), in clear text on loopback.
"""

import asyncio
import json
import ssl
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
Hook = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class OAuthServer:
    """`tokens`: who each good access token is for. `hook` answers instead, while it is set. `asked`: the forms."""

    user: str = "me@example.com"
    client_id: str = "client"
    client_secret: str = "client-secret-marker"
    refresh_token: str = "refresh-marker-0"
    rotates: bool = False
    life_s: object = 3600
    hook: Hook | None = None
    slow_s: float = 0.0
    tokens: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    public_key: rsa.RSAPublicKey | None = None
    claims: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0
    plain_port: int = 0
    ca: Path = Path()

    @property
    def url(self) -> str:
        """The token endpoint."""
        return f"https://127.0.0.1:{self.port}/token"

    @property
    def tls(self) -> ssl.SSLContext:
        """A client's context that trusts it."""
        return ssl.create_default_context(cafile=str(self.ca))

    def void(self) -> None:
        """No access token is good any more."""
        self.tokens.clear()

    async def token(self, request: web.Request) -> web.StreamResponse:
        """The token endpoint."""
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.asked.append(form)
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        if self.hook is not None:
            return await self.hook(request)
        error = self._wrong(form)
        if error:
            return web.json_response({"error": error, "error_description": f"no: {form}"}, status=400)
        access = f"access-marker-{len(self.asked)}"
        self.tokens[access] = self.user
        said: dict[str, object] = {"access_token": access, "token_type": "Bearer", "expires_in": self.life_s}
        if self.rotates:
            self.refresh_token = said["refresh_token"] = f"refresh-marker-{len(self.asked)}"
        return web.json_response(said)

    def _wrong(self, form: dict[str, str]) -> str:
        grant = form.get("grant_type")
        if grant == JWT_BEARER:
            return "" if self._signed(form["assertion"]) else "invalid_grant"
        if (form.get("client_id"), form.get("client_secret")) != (self.client_id, self.client_secret):
            return "invalid_client"
        if grant == "refresh_token":
            return "" if form.get("refresh_token") == self.refresh_token else "invalid_grant"
        return "" if grant == "client_credentials" else "unsupported_grant_type"

    def _signed(self, assertion: str) -> bool:
        head, body, signature = assertion.split(".")
        assert self.public_key is not None
        self.public_key.verify(_decoded(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), SHA256())
        claims = json.loads(_decoded(body))
        self.claims.append(json.loads(_decoded(head)) | claims)
        fresh: bool = claims["iat"] <= time.time() + 5 and claims["exp"] - claims["iat"] <= 3600
        return fresh and claims["aud"] == self.url

    async def tokeninfo(self, request: web.Request) -> web.StreamResponse:
        """For Dovecot: whose token is this?"""
        user = self.tokens.get(request.query.get("access_token", ""))
        if user is None:
            return web.json_response({"error": "invalid_token"}, status=401)
        return web.json_response({"username": user, "active": True})

    async def other(self, request: web.Request) -> web.StreamResponse:
        """Where nobody should come."""
        self.elsewhere.append(f"{request.method} {request.path} {(await request.read()).decode()}")
        return web.json_response({"access_token": "stolen", "token_type": "Bearer"})


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


OAuthMaker = Callable[..., Awaitable[OAuthServer]]


@pytest.fixture
async def make_oauth(tmp_path: Path, authority: trustme.CA) -> AsyncIterator[OAuthMaker]:
    """A maker of token endpoints, stopped with the test."""
    runners: list[web.AppRunner] = []

    async def make(context: ssl.SSLContext | None = None, **fields: Any) -> OAuthServer:
        server = OAuthServer(**fields)
        server.ca = tmp_path / "oauth-ca.pem"
        authority.cert_pem.write_to_path(str(server.ca))
        app = web.Application()
        app.router.add_post("/token", server.token)
        app.router.add_get("/tokeninfo", server.tokeninfo)
        app.router.add_route("*", "/{other:.*}", server.other)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        secure = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        plain = web.TCPSite(runner, "127.0.0.1", 0)
        await secure.start()
        await plain.start()
        server.port, server.plain_port = (address[1] for address in runner.addresses)
        return server

    yield make
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def oauth(make_oauth: OAuthMaker) -> OAuthServer:
    """A token endpoint that behaves."""
    return await make_oauth()
