"""What an operator writes → values with a unit: durations, sizes, hosts, addresses. Used by all of this room.

Each value has one spelling. Errors say what would do; they never repeat a secret.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, ParamSpec, TypeVar

from pydantic import PlainSerializer, ValidationInfo
from pydantic.functional_validators import BeforeValidator, PlainValidator
from pydantic.json_schema import WithJsonSchema
from pydantic_core import PydanticCustomError

from service.contract import After, AfterKind, mailbox_name

UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
SIZES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
DURATION: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
SIZE: Final = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)")
LISTEN: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")
HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})|[0-9a-fA-F:.]{2,45}")
# RFC 5321 4.5.3.1.3: a path holds at most 256 octets, its brackets included.
ADDRESS_LIMIT: Final = 254
# RFC 9051 5.1 knows no limit; what is longer than a line of the protocol is no mailbox.
MAILBOX_LIMIT_BYTES: Final = 1_000
# These would end a command or a header: no encoding makes them safe everywhere.
LINE_END: Final = re.compile(r"[\r\n\x00]")
# What is certainly meant as a path, and no secret that was written in its place.
PATH_SHOWN: Final = re.compile(r"(?:/[A-Za-z0-9._-]{1,40}){1,20}")
# The type of errors of which no value is shown.
UNSHOWN: Final = "mailbus_unshown"

P = ParamSpec("P")
T = TypeVar("T")


def wrong(message: str) -> PydanticCustomError:
    """An error whose message says what would do. The message goes out as it is."""
    return PydanticCustomError("mailbus", "{message}", {"message": message})


def unshown(check: Callable[P, T]) -> Callable[P, T]:
    """The same check, whose errors show nothing of what stood there: a secret belongs there, or into the next line."""

    @wraps(check)
    def checked(*given: P.args, **named: P.kwargs) -> T:
        try:
            return check(*given, **named)
        except PydanticCustomError as exc:
            raise PydanticCustomError(UNSHOWN, "{message}", {"message": exc.message()}) from None

    return checked


def shown(what: str, name: str, form: re.Pattern[str]) -> str:
    """What it is, by its name where that may be shown: a secret may stand there by mistake."""
    return f"{what} {name}" if form.fullmatch(name) else f"{what} that it names"


def shown_file(path: str) -> str:
    """A file by its path, where that is certainly one; of a relative one, where it was looked for."""
    beside = "" if path.startswith("/") else " beside the settings file"
    return shown("the file", path, PATH_SHOWN) + beside


def text(value: Any) -> str:
    """A string as it was written. YAML reads 0123 as the number 83, so a number is refused, not guessed."""
    if not isinstance(value, str):
        raise wrong("write text; put what looks like a number, a date or yes and no in quotes")
    if LINE_END.search(value):
        raise wrong("must not hold a line end or a NUL")
    return value


def some_text(value: Any) -> str:
    """Text that is not empty."""
    if not text(value).strip():
        raise wrong("must not be empty")
    return str(value)


def number(value: Any) -> Any:
    """A number, or digits from the environment; yes and no are none."""
    if isinstance(value, bool):
        raise wrong("write a number")
    return value


def duration(value: Any) -> timedelta:
    found = DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise wrong("write a whole number and its unit, ms s m h or d, such as 90s or 30d")
    milliseconds = int(found[1]) * UNITS_MS[found[2]]
    if not 0 < milliseconds <= 36_500 * UNITS_MS["d"]:
        raise wrong("must be more than 0 and at most 36500d")
    return timedelta(milliseconds=milliseconds)


def show_duration(value: timedelta) -> str:
    """The one spelling of a duration: the largest unit that divides it."""
    total_ms = round(value.total_seconds() * 1000)
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if total_ms % UNITS_MS[unit] == 0)
    return f"{total_ms // UNITS_MS[unit]}{unit}"


def size(value: Any) -> int:
    found = SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise wrong("write a whole number and its unit, B KiB MiB or GiB, such as 256KiB")
    size = int(found[1]) * SIZES[found[2]]
    if not 0 < size <= 1 << 50:
        raise wrong("must be more than 0B")
    return size


def show_size(value: int) -> str:
    """The one spelling of a size: the largest unit that divides it."""
    unit = next(unit for unit in ("GiB", "MiB", "KiB", "B") if value % SIZES[unit] == 0)
    return f"{value // SIZES[unit]}{unit}"


def between(least: str, most: str) -> Callable[[timedelta], timedelta]:
    """A check that a duration lies in a range, both ends included."""
    first, last = duration(least), duration(most)

    def check(value: timedelta) -> timedelta:
        if not first <= value <= last:
            raise wrong(f"must be between {least} and {most}")
        return value

    return check


Duration = Annotated[
    timedelta,
    PlainValidator(duration),
    PlainSerializer(show_duration, return_type=str),
    WithJsonSchema({"type": "string", "format": "mailbus-duration", "pattern": f"^{DURATION.pattern}$"}),
]
Size = Annotated[
    int,
    PlainValidator(size),
    PlainSerializer(show_size, return_type=str),
    WithJsonSchema({"type": "string", "format": "mailbus-size", "pattern": f"^{SIZE.pattern}$"}),
]
# Names of users and clients, beside whose password they stand.
Text = Annotated[str, BeforeValidator(unshown(some_text))]


class Listen(NamedTuple):
    """Where the HTTP server listens. Port 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _listen(value: Any) -> Listen:
    found = LISTEN.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found[3]) > 65535:
        raise wrong("write HOST:PORT, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080; port 0 takes any free one")
    return Listen(found[1] or found[2], int(found[3]))


ListenAddress = Annotated[
    Listen,
    PlainValidator(_listen),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^({LISTEN.pattern})$"}),
]


def _host(value: Any) -> str:
    host = some_text(value)
    if HOST.fullmatch(host) is None or (host.count(":") == 1):
        raise wrong("write a host name or an IP address alone: no protocol before it, no port behind it")
    return host


Host = Annotated[str, BeforeValidator(_host)]


def _address(value: Any) -> str:
    address = some_text(value)
    local, at, domain = address.rpartition("@")
    if not at or not local or not domain or re.search(r"[\s<>,;\x00-\x1f\x7f]", address) or "@" in local.strip('"'):
        raise wrong("write one mail address alone, such as support@example.com")
    if len(address.encode()) > ADDRESS_LIMIT:
        raise wrong(f"must be at most {ADDRESS_LIMIT} bytes long")
    return address


Address = Annotated[str, BeforeValidator(unshown(_address)), WithJsonSchema({"type": "string", "format": "idn-email"})]


def folder_of(info: ValidationInfo) -> Path:
    """Where relative paths start: beside the settings file."""
    context = info.context if isinstance(info.context, dict) else {}
    folder = context.get("folder")
    return folder if isinstance(folder, Path) else Path()


def _since(value: Any) -> Literal["new", "all"] | datetime:
    if value == "new" or value == "all":
        return "new" if value == "new" else "all"
    since = value.get("since") if isinstance(value, dict) and value.keys() == {"since"} else None
    if isinstance(since, str):
        try:
            since = datetime.fromisoformat(since)
        except ValueError:
            since = None
    if isinstance(since, date) and not isinstance(since, datetime):
        since = datetime(since.year, since.month, since.day)
    if not isinstance(since, datetime):
        raise wrong("write new, all, or {since: 2026-01-01}")
    if not 1970 <= since.year < 9000:
        raise wrong("write a date from 1970 on")
    return since.astimezone(UTC) if since.tzinfo else since.replace(tzinfo=UTC)


def _show_since(value: str | datetime) -> Any:
    return {"since": value.isoformat()} if isinstance(value, datetime) else value


Initial = Annotated[
    Literal["new", "all"] | datetime,
    PlainValidator(_since),
    PlainSerializer(_show_since),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["new", "all"]},
                {
                    "type": "object",
                    "properties": {"since": {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}},
                    "required": ["since"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


# Ten years: longer is for ever, which is `nothing`.
KEEP_LIMIT_DAYS: Final = 3650


def mailbox_text(value: Any) -> str:
    """What may be a mailbox's name, as it was written."""
    name = some_text(value)
    if len(name.encode()) > MAILBOX_LIMIT_BYTES:
        raise wrong(f"must be at most {MAILBOX_LIMIT_BYTES} bytes long")
    return name


def _after(value: Any) -> After:
    if value in (AfterKind.NOTHING, AfterKind.SEEN, AfterKind.DELETE):
        return After(AfterKind(value))
    if isinstance(value, dict) and value.keys() == {"keep_days"}:
        days = number(value["keep_days"])
        if not isinstance(days, int) or not 1 <= days <= KEEP_LIMIT_DAYS:
            raise wrong(f"keep_days must be between 1 and {KEEP_LIMIT_DAYS}")
        return After(AfterKind.DELETE, keep_days=days)
    if not isinstance(value, dict) or value.keys() != {"move"}:
        raise wrong("write nothing, seen, delete, {move: MAILBOX}, or {keep_days: N}")
    return After(AfterKind.MOVE, mailbox_name(mailbox_text(value["move"])))


def _show_after(value: After) -> Any:
    if value.keep_days:
        return {"keep_days": value.keep_days}
    return {"move": value.mailbox} if value.kind is AfterKind.MOVE else str(value.kind)


AfterRule = Annotated[
    After,
    PlainValidator(_after),
    PlainSerializer(_show_after),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["nothing", "seen", "delete"]},
                {
                    "type": "object",
                    "properties": {"move": {"type": "string"}},
                    "required": ["move"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": {"keep_days": {"type": "integer", "minimum": 1, "maximum": KEEP_LIMIT_DAYS}},
                    "required": ["keep_days"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
