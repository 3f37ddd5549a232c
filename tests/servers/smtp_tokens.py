"""A scripted relay that takes access tokens: aiosmtpd with XOAUTH2 and OAUTHBEARER beside its own mechanisms."""

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import MISSING, SMTP, AuthResult

from tests.servers.smtp import Handler, ScriptedRelay

ERROR = {"status": "400", "schemes": "Bearer", "scope": "https://mail.google.com/"}


@dataclass
class TokenWatch:
    """`good`: token → user. What was said, whether with the command, and how the error was answered."""

    good: Mapping[str, str]
    mechanisms: tuple[str, ...] = ("OAUTHBEARER", "XOAUTH2")
    said: list[str] = field(default_factory=list)
    with_command: list[bool] = field(default_factory=list)
    farewells: list[bytes] = field(default_factory=list)
    challenges: bool = True

    def handler(self, relay: ScriptedRelay) -> Handler:
        """For a ScriptedRelay's `handler`."""
        made = Handler(relay)
        for name in self.mechanisms:
            setattr(made, f"auth_{name}", self._authenticate)
        return made

    async def _authenticate(self, server: SMTP, args: list[str]) -> AuthResult:
        self.with_command.append(len(args) == 2)
        said = b64decode(args[1]) if len(args) == 2 else await server.challenge_auth("")
        if said is MISSING:
            return AuthResult(success=False)
        assert isinstance(said, bytes)
        text = said.decode()
        self.said.append(f"{args[0]} {text}")
        token = text.partition("Bearer ")[2].partition("\x01")[0]
        if token in self.good and self.good[token] in text:
            return AuthResult(success=True)
        if self.challenges:
            answer: Any = await server.challenge_auth(json.dumps(ERROR))
            self.farewells.append(answer)
        return AuthResult(success=False, handled=False, message=f"535 5.7.8 no {token} {args[-1]}")
