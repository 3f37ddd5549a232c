"""The servers of an account as settings: IMAP, POP3, SMTP. Used by model.py."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic.functional_validators import AfterValidator

from service.contract import Security
from service.settings.files import Named
from service.settings.part import Part
from service.settings.secret import Secret
from service.settings.values import Duration, Host, Size, Text, between, duration, number, size, wrong

IMAP_PORTS: Final = {Security.TLS: 993, Security.STARTTLS: 143, Security.NONE: 143}
POP3_PORTS: Final = {Security.TLS: 995, Security.STARTTLS: 110, Security.NONE: 110}
SMTP_PORTS: Final = {Security.TLS: 465, Security.STARTTLS: 587, Security.NONE: 25}
# RFC 2033 5: never 25. There is no other number for it; mailbox servers and their guides use this one.
LMTP_PORTS: Final = dict.fromkeys(Security, 24)


def lasting(default: str, description: str) -> Any:
    """A duration's field; its default is shown as one writes it."""
    return Field(default=duration(default), description=description, json_schema_extra={"default": default})


def sized(default: str, description: str) -> Any:
    """A size's field; its default is shown as one writes it."""
    return Field(default=size(default), description=description, json_schema_extra={"default": default})


Port = Annotated[int, BeforeValidator(number), Field(ge=1, le=65535)]


def _security() -> Any:
    return Field(default=Security.TLS, description="`tls`, `starttls`, or `none` (must be written out)")


def _login_fields(data: Any, ports: dict[Security, int]) -> Any:
    """The port that goes with the protection, where none is given."""
    if not isinstance(data, dict) or "port" in data:
        return data
    security = data.get("security", Security.TLS)
    known = security in list(Security) if isinstance(security, str) else False
    return data | ({"port": ports[Security(security)]} if known else {})


class ImapSettings(Part):
    """The IMAP server."""

    host: Host = Field(description="Host name of the IMAP server; required unless a preset has it")
    port: Port = Field(default=993, description="Default: 993 with `security: tls`, 143 otherwise")
    security: Security = _security()
    ca: Named | None = Field(default=None, description="File with the authorities to trust; default: the system's")
    # RFC 2177: renew IDLE at least every 29 minutes.
    idle: Annotated[Duration, AfterValidator(between("1s", "29m"))] = lasting("4m", "IDLE is renewed this often")
    reply: Annotated[Duration, AfterValidator(between("1s", "10m"))] = lasting(
        "30s", "A command not answered within this time is a dead connection"
    )
    connections: Annotated[int, BeforeValidator(number), Field(ge=2, le=1_000)] = Field(
        default=3,
        description="Connections at once: one for commands and `after`, the others for all of the mailboxes",
    )
    daily: Size | None = Field(
        default=None,
        description="Bytes of mail read in 24 hours at the most, by commands too; `null`: as many as there are",
    )

    @model_validator(mode="before")
    @classmethod
    def _port(cls, data: Any) -> Any:
        return _login_fields(data, IMAP_PORTS)


class Pop3Settings(Part):
    """The POP3 server: instead of IMAP, or to stand in for it. It has one mailbox, INBOX."""

    host: Host = Field(description="Host name of the POP3 server; required unless a preset has it")
    port: Port = Field(default=995, description="Default: 995 with `security: tls`, 110 otherwise")
    security: Security = _security()
    ca: Named | None = Field(default=None, description="File with the authorities to trust; default: the system's")
    reply: Annotated[Duration, AfterValidator(between("1s", "10m"))] = lasting(
        "30s", "A command not answered within this time is a dead connection"
    )
    stand_in: Annotated[Duration, AfterValidator(between("1s", "1d"))] = lasting(
        "5m", "Beside `imap`: after how long without IMAP new mail of INBOX comes by POP3"
    )
    apop: bool = Field(default=False, description="Log in by APOP, and by nothing else: for servers without TLS")

    @model_validator(mode="before")
    @classmethod
    def _port(cls, data: Any) -> Any:
        return _login_fields(data, POP3_PORTS)


class RelaySettings(Part):
    """A server that takes mail."""

    protocol: Literal["smtp", "lmtp"] = Field(
        default="smtp", description="`lmtp` (RFC 2033) for a mailbox server of one's own, such as Dovecot"
    )
    host: Host = Field(description="Host name of the SMTP server; required unless a preset has it")
    port: Port = Field(
        default=465,
        description="Default: 465 with `security: tls`, 587 with `starttls`, 25 with `none`; 24 with `protocol: lmtp`",
    )
    security: Security = _security()
    ca: Named | None = Field(default=None, description="File with the authorities to trust; default: the system's")
    login: bool = Field(default=True, description="`false` for a relay that wants no login")

    @model_validator(mode="before")
    @classmethod
    def _port(cls, data: Any) -> Any:
        lmtp = isinstance(data, dict) and data.get("protocol") == "lmtp"
        return _login_fields(data, LMTP_PORTS if lmtp else SMTP_PORTS)


class SmtpSettings(RelaySettings):
    """The SMTP server that takes mail (a relay, or the provider's submission server)."""

    connections: Annotated[int, BeforeValidator(number), Field(ge=1, le=32, description="Mails under way at once")] = 8


class NextRelaySettings(RelaySettings):
    """A further relay, with credentials of its own: those of another provider are none of its business."""

    username: Text = Field(default="", description="Required unless `login` is `false`")
    password: Secret = Field(default=Secret(), description="Required unless `login` is `false`")

    @model_validator(mode="after")
    def _logs_in(self) -> Self:
        if self.login and not (self.username and self.password):
            raise wrong("write username and password of this relay, or login: false")
        return self
