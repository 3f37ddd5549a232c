"""What the tests of tokens share: a source of an endpoint, an endpoint's answers, all that an error shows."""

import json
import traceback
from collections.abc import Callable
from typing import Any

from aiohttp import web

from service.oauth import Grant, OAuthOptions, Tokens
from tests.servers.clock import FakeClock
from tests.servers.oauth import OAuthServer

MARKER = "marker"


def options(server: OAuthServer, **changes: Any) -> OAuthOptions:
    usual: dict[str, Any] = {
        "account": "a",
        "grant": Grant.REFRESH_TOKEN,
        "token_url": server.url,
        "tls": server.tls,
        "client_id": server.client_id,
        "client_secret": server.client_secret,
        "refresh_token": server.refresh_token,
        "scope": "mail",
    }
    return OAuthOptions(**(usual | changes))


def tokens(server: OAuthServer, clock: FakeClock | None = None, **changes: Any) -> Tokens:
    return Tokens(options(server, **changes), clock or FakeClock())


def answering(status: int, body: object, **headers: str) -> Callable[[web.Request], Any]:
    async def hook(request: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return hook


def shown(error: BaseException) -> str:
    """All that anybody may see of an error."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)
