"""What the bus must know: plain values, made by the composition root from settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """How to reach NATS. `ca`, `cert`, `key`, `creds` are paths; secrets are not shown by repr.

    `files`: where `password`, `token` or `nkey_seed` was read, and is read anew at each connect.
    """

    servers: tuple[str, ...] = field(repr=False)
    name: str = "mailbus"
    prefix: str = "mail"
    replicas: int = 1
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    creds: str | None = None
    nkey_seed: str | None = field(default=None, repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How long things live, in seconds; None is for ever. `inline_bytes`: of the bodies that an event may hold."""

    in_max_age_s: float | None = 30 * 86400
    status_max_age_s: float | None = 30 * 86400
    dead_max_age_s: float | None = 90 * 86400
    sends_window_s: float | None = 30 * 86400
    presence_ttl_s: float = 10
    max_consumers: int = 20_000
    inline_bytes: int = 0
