"""The settings as types, with their defaults and what each means. The docs' table and the schema are made from here.

Only keys that do something exist. What concerns several keys at once (an account's credentials, sizes that must
fit each other) is in load.py, so that all errors can be listed together.
"""

import base64
import re
import socket
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator
from pydantic.functional_validators import AfterValidator
from pydantic.json_schema import WithJsonSchema

from service.contract import ACCOUNT_ID, ROLES, After, AfterKind, Choice, ChoiceKind, Extra
from service.mime import language_is_there
from service.parsing import Raw
from service.settings.fill import filled_account, preset_name
from service.settings.mailboxes import Choices, SomeChoices, literal
from service.settings.nats import NatsSettings
from service.settings.network import NetworkSettings
from service.settings.oauth2 import OAuth2Settings
from service.settings.outgoing import DkimSettings, Domain, DomainSettings, Rate, Verp
from service.settings.part import Part
from service.settings.presets import PRESETS
from service.settings.secret import Secret
from service.settings.servers import ImapSettings, NextRelaySettings, Pop3Settings, SmtpSettings, lasting, sized
from service.settings.values import (
    Address,
    AfterRule,
    Duration,
    Initial,
    Listen,
    ListenAddress,
    Size,
    Text,
    between,
    number,
    text,
    unshown,
    wrong,
)

FERNET_KEY_BYTES: Final = 32
MAKE_KEY: Final = "python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
INSTANCE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _account_id(value: Any) -> str:
    if ACCOUNT_ID.fullmatch(text(value)) is None:
        raise wrong("write 1 to 64 letters, digits, - or _")
    return str(value)


def _instance(value: Any) -> str:
    """A name of the process. A host name's dots become -."""
    name = text(value).replace(".", "-")
    if INSTANCE.fullmatch(name) is None:
        raise wrong("write 1 to 64 letters, digits, . - or _")
    return name


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:64] or "mailbus"


def _role(value: Any) -> str:
    if text(value) not in ROLES:
        raise wrong(f"there is {', '.join(ROLES)}")
    return str(value)


Role = Annotated[str, BeforeValidator(_role)]
Name = Annotated[str, BeforeValidator(literal)]


def _preset(value: Any) -> str:
    name = text(preset_name(value))
    if name not in PRESETS:
        raise wrong(f"there is {', '.join(sorted(PRESETS))}")
    return name


class HttpSettings(Part):
    """The HTTP server."""

    listen: ListenAddress = Field(
        default=Listen("127.0.0.1", 8080),
        description="Where /metrics, /healthz, /readyz and the status page are",
        json_schema_extra={"default": "127.0.0.1:8080"},
    )


class LogSettings(Part):
    """What is logged to standard error, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least important lines shown"
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="`auto`: `console` on a terminal, `json` otherwise"
    )


class FleetSettings(Part):
    """How accounts are divided among the processes under one prefix."""

    capacity: Annotated[float, BeforeValidator(number), Field(gt=0, le=1_000, allow_inf_nan=False)] = Field(
        default=1.0, description="This process's share of the accounts, beside those of the others"
    )
    ttl: Annotated[Duration, AfterValidator(between("3s", "5m"))] = lasting(
        "10s", "How long after its last sign of life a process's accounts go to others; the same for all of them"
    )


@unshown
def _seal_key(key: Secret) -> Secret:
    """A key as the library takes it, which is there only where accounts are sealed: 32 bytes in base64."""
    try:
        found = base64.urlsafe_b64decode(key.reveal())
    except ValueError:
        found = b""
    if len(found) != FERNET_KEY_BYTES:
        raise wrong(f"no Fernet key; {MAKE_KEY} makes one")
    return key


class SealSettings(Part):
    """How secrets of accounts that are added over the bus are kept there."""

    keys: tuple[Annotated[Secret, AfterValidator(_seal_key)], ...] = Field(
        default=(),
        description="Fernet keys: the first seals, all of them open; without any, secrets are `{env}`, `{file}`",
    )


class InSettings(Part):
    """The stream of events."""

    max_age: Duration | None = lasting("30d", "How long events are kept; `null`: for ever")


class StatusSettings(Part):
    """The stream of statuses."""

    max_age: Duration | None = lasting("30d", "How long statuses are kept; `null`: for ever")


class DeadSettings(Part):
    """The stream of dead letters."""

    max_age: Duration | None = lasting("90d", "How long dead letters are kept; `null`: for ever")


class StreamSettings(Part):
    """The streams that mailbus creates. Existing ones are checked, never changed."""

    in_: InSettings = Field(default_factory=InSettings, alias="in", description="MAIL_IN")
    status: StatusSettings = Field(default_factory=StatusSettings, description="MAIL_STATUS")
    dead: DeadSettings = Field(default_factory=DeadSettings, description="MAIL_DEAD")
    max_consumers: Annotated[int, BeforeValidator(number), Field(ge=1, le=1_000_000)] = Field(
        default=20_000,
        description="Consumers that a stream takes; the sender needs two for each account with mail queued, and one "
        "more with urgent mail, one with copies for its Sent mailbox",
    )


class LimitSettings(Part):
    """Sizes that bound memory."""

    inline: Size = sized(
        "256KiB",
        "Text up to this size rides in the event; 16 KiB below NATS's `max_payload`",
    )
    message: Size = sized("50MiB", "Of a larger message only the header is read")
    memory: Size = sized("512MiB", "Bytes of mail in hand at once, read and sent, over all accounts")


class IncomingSettings(Part):
    """Mail that becomes events."""

    imap: ImapSettings | None = Field(default=None, description="The IMAP server")
    pop3: Pop3Settings | None = Field(
        default=None, description="The POP3 server, instead of `imap` or to stand in for it"
    )
    username: Text = Field(default="", description="Default: the account's")
    password: Secret = Field(default=Secret(), description="Default: the account's")
    oauth2: OAuth2Settings | None = Field(default=None, description="Default: the account's")
    mailboxes: SomeChoices = Field(
        default=(Choice(ChoiceKind.NAME, "INBOX"),),
        description="Mailboxes to follow: names, patterns (`*` anything, `%` anything but the server's delimiter),"
        ' roles such as `\\Archive`, `{name: "a * b"}` for a name as it is',
        json_schema_extra={"default": ["INBOX"]},
    )
    exclude: Choices = Field(
        default=(), description="Mailboxes not to follow, written alike", json_schema_extra={"default": []}
    )
    once: bool = Field(
        default=True,
        description="Where labels show a message in several of `mailboxes` (Gmail): announce it in the first of them"
        " that has it; `false`: in each",
    )
    roles: dict[Role, Name] = Field(
        default={},
        description="Names of mailboxes by role, where the server does not say them; such as `{trash: Papierkorb}`",
    )
    initial: Initial = Field(
        default="new", description="What of the mail already there is announced: `new`, `all`, or `{since: 2026-01-01}`"
    )
    poll: Annotated[Duration, AfterValidator(between("1s", "1d"))] = lasting(
        "60s", "How often to look where the server has no IDLE, and by POP3 (a tenth more or less)"
    )
    raw: Raw = Field(
        default=Raw.PROBLEM,
        description="Which raw messages are kept as blobs: `problem` (those not parsed whole, or with a detached "
        "signature), `always` (the default with `after: delete`), `never`",
    )
    after: AfterRule = Field(
        default_factory=After,
        description="What is done to a mail once its event is confirmed: `nothing`, `seen`, `delete`, "
        "`{move: MAILBOX}`, or by POP3 `{keep_days: N}`: deleted so many days later",
        json_schema_extra={"default": "nothing"},
    )
    after_delay: Duration = lasting("5m", "How long after its event a mail is deleted or moved")
    authserv_id: Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\s;=]*$")] = Field(
        default="",
        description="The name under which the account's own mail server writes Authentication-Results (RFC 8601 2.5). "
        "To be given only where it removes such fields of that name from mail that comes in (RFC 8601 5); without it "
        "only fields above the topmost Received field count, where no sender can put one",
    )
    extras: tuple[Extra, ...] = Field(
        default=(),
        description="What events have of a mail's text beside its bodies, each at a cost of its own: `text` (plain "
        "text of HTML and of flowed lines), `reply` (what is new, without quotes and signature), `html` (HTML that may "
        "be shown), `language` (of the reply, as a tag; needs `mailbus[language]`, and 120 MiB in each process)",
    )

    @field_validator("extras")
    @classmethod
    def _installed(cls, extras: tuple[Extra, ...]) -> tuple[Extra, ...]:
        """What an optional library makes is refused here, and not missing in silence later."""
        if Extra.LANGUAGE in extras and not language_is_there():
            raise wrong("`language` needs a library: pip install 'mailbus[language]'")
        return extras

    @model_validator(mode="after")
    def _kept_whole(self) -> Self:
        """What is deleted on the server stays to be had, unless it is said that it shall not."""
        if self.after.kind is AfterKind.DELETE and "raw" not in self.model_fields_set:
            object.__setattr__(self, "raw", Raw.ALWAYS)
        return self


class RetrySettings(Part):
    """When a recipient that was put off is tried again."""

    first: Annotated[Duration, AfterValidator(between("1s", "1d"))] = lasting("1m", "Until the second attempt")
    factor: Annotated[float, BeforeValidator(number), Field(ge=1, le=10, allow_inf_nan=False)] = Field(
        default=2.0, description="How much longer each pause is"
    )
    max: Annotated[Duration, AfterValidator(between("1s", "7d"))] = lasting("4h", "The longest pause")


class OutgoingSettings(Part):
    """Requests that become mail."""

    smtp: SmtpSettings = Field(description="The SMTP server")
    relays: tuple[NextRelaySettings, ...] = Field(
        default=(), description="Further ones, asked in this order while those before are away or refuse all mail"
    )
    username: Text = Field(default="", description="Default: the account's")
    password: Secret = Field(default=Secret(), description="Default: the account's")
    oauth2: OAuth2Settings | None = Field(default=None, description="Default: the account's")
    rate: Rate | None = Field(
        default=None,
        description="Mails in a time at the most, such as `30/1m`, spread evenly; `null`: as fast as the relay allows",
    )
    domains: dict[Domain, DomainSettings] = Field(
        default={},
        description="Limits by the domain of recipients, such as `{example.org: {rate: 30/1m, connections: 2}}`; `*` "
        "is each domain that is not named. Without any, slower only where the relay asks for it",
    )
    uncertain: Literal["retry", "hold"] = Field(
        default="retry", description="When nobody knows whether a mail went out: send it again, or hold it for a human"
    )
    retry: RetrySettings = Field(default_factory=RetrySettings, description="When to try again")
    expires: Duration = lasting("5d", "When a request that was put off again and again fails")
    window: Duration = lasting("30d", "How long a request's id is remembered")
    dkim: tuple[DkimSettings, ...] = Field(default=(), description="Signatures that every mail gets; default: none")
    redirect: Address | None = Field(default=None, description="An address that gets everything instead (staging)")
    sent: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Whether a copy of each mail goes into the account's Sent mailbox, by IMAP: `auto`, where there is "
        "one and the provider keeps none itself; `always`; `never`",
    )
    verp: Verp = Field(
        default="",
        description="Where bounces of each mail go, such as `bounces+{}@example.com`: an address of a mailbox that is "
        "followed, with `{}` where what proves the request stands (VERP). Default: the sender's address",
    )
    suppress: bool = Field(
        default=True, description="Send nothing more to whom mail of ours bounced for good, or who complained of it"
    )


class AccountSettings(Part):
    """One mail account: what comes in, what goes out, or both."""

    id: Annotated[str, BeforeValidator(_account_id)] = Field(description="Its name on the bus, unique")
    address: Address = Field(description="Its mail address")
    preset: Annotated[str, BeforeValidator(_preset), WithJsonSchema({"enum": sorted(PRESETS)})] | None = Field(
        default=None, description="A provider whose hosts and ports are filled in; any key overrides it"
    )
    username: Text = Field(default="", description="Default: the address")
    password: Secret = Field(default=Secret(), description="For both directions, unless they have their own")
    oauth2: OAuth2Settings | None = Field(
        default=None, description="Instead of a password; a direction may have its own"
    )
    incoming: IncomingSettings | None = Field(default=None, description="Mail that becomes events; `null`: none")
    outgoing: OutgoingSettings | None = Field(default=None, description="Requests that become mail; `null`: none")

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, data: Any) -> Any:
        return filled_account(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        """Each direction with its own credentials, so that nobody has to look in two places."""
        username = self.username or self.address
        object.__setattr__(self, "username", username)
        for name in ("incoming", "outgoing"):
            part = getattr(self, name)
            if part is not None:
                whose = part if part.password or part.oauth2 else self
                own = {"username": part.username or username, "password": whose.password, "oauth2": whose.oauth2}
                object.__setattr__(self, name, part.model_copy(update=own))
        return self


class Settings(Part):
    """Everything an operator decides. Without a file: NATS on this machine, no accounts."""

    nats: NatsSettings = Field(default_factory=NatsSettings, description="NATS")
    http: HttpSettings = Field(default_factory=HttpSettings, description="The HTTP server")
    network: NetworkSettings = Field(default_factory=NetworkSettings, description="Where accounts' servers may be")
    instance: Annotated[str, BeforeValidator(_instance)] = Field(
        default_factory=_host_name, description="This process's name in the fleet; default: the host name"
    )
    fleet: FleetSettings = Field(default_factory=FleetSettings, description="Sharing accounts among processes")
    seal: SealSettings = Field(default_factory=SealSettings, description="Secrets of accounts added over the bus")
    log: LogSettings = Field(default_factory=LogSettings, description="Logs")
    streams: StreamSettings = Field(default_factory=StreamSettings, description="Streams")
    limits: LimitSettings = Field(default_factory=LimitSettings, description="Sizes")
    accounts: tuple[AccountSettings, ...] = Field(default=(), description="The mail accounts")
