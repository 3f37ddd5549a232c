"""How to reach NATS, as settings say it. A section of model.py's Settings."""

import re
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field
from pydantic.functional_validators import PlainValidator
from pydantic.json_schema import WithJsonSchema

from service.contract import PREFIX
from service.settings.files import FilePath
from service.settings.part import Part
from service.settings.secret import Secret
from service.settings.values import Text, number, text, unshown, wrong

SERVER: Final = re.compile(r"(nats|tls)://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?/?")


def _prefix(value: Any) -> str:
    if PREFIX.fullmatch(text(value)) is None:
        raise wrong("write 1 to 32 letters, digits, - or _")
    return str(value)


def _port_is_one(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _servers(value: Any) -> list[str]:
    """A list, or (as the environment writes it) names with commas between."""
    servers = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(servers, list) or not servers:
        raise wrong("write a list of URLs, such as [nats://127.0.0.1:4222]")
    for server in servers:
        if "@" in text(server):
            raise wrong("credentials in a URL show up in logs: write nats.user and nats.password, or nats.token")
        if SERVER.fullmatch(server) is None or not _port_is_one(server):
            raise wrong("each must be a URL such as nats://127.0.0.1:4222 or tls://nats.example.com:4222")
    return servers


class TlsSettings(Part):
    """TLS to NATS."""

    ca: FilePath | None = Field(default=None, description="File with the authorities to trust; default: the system's")
    cert: FilePath | None = Field(default=None, description="File with the client's certificate")
    key: FilePath | None = Field(default=None, description="File with the client certificate's key")


class NatsSettings(Part):
    """How to reach NATS, and what is created there."""

    servers: Annotated[
        list[str],
        PlainValidator(unshown(_servers)),
        WithJsonSchema({"type": "array", "items": {"type": "string", "pattern": f"^{SERVER.pattern}$"}, "minItems": 1}),
    ] = Field(default=["nats://127.0.0.1:4222"], description="URLs of the servers, `nats://` or `tls://`")
    user: Text | None = Field(default=None, description="User, with `password`")
    password: Secret | None = Field(default=None, description="The user's password")
    token: Secret | None = Field(default=None, description="Token, instead of a user")
    creds: FilePath | None = Field(default=None, description="Credentials file (JWT and seed), instead of a user")
    nkey_seed: Secret | None = Field(default=None, description="Seed of an nkey, instead of a user")
    tls: TlsSettings = Field(default_factory=TlsSettings, description="TLS to NATS")
    prefix: Annotated[str, BeforeValidator(_prefix)] = Field(
        default="mail", description="First token of every subject, and beginning of every stream's and bucket's name"
    )
    replicas: Annotated[int, BeforeValidator(number), Field(ge=1, le=5)] = Field(
        default=1, description="Replicas of the streams that mailbus creates; existing ones are checked, never changed"
    )
