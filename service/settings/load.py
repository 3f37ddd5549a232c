"""Plain values → Settings, or SettingsInvalid with all that is wrong and what would do, and no secret in it."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from service.errors import Permanent
from service.settings.file import ENV_PREFIX, Unreadable, read_all, unknown_variables
from service.settings.model import Settings, filled_account
from service.settings.reference import models_of
from service.settings.values import show_size

SECRET_KEYS: Final = frozenset({"password", "token", "nkey_seed", "oauth2"})
# Keys of the contract that come later. Refused by name, so that nobody believes they do something.
NOT_YET: Final = frozenset({"pop3", "oauth2", "exclude", "after_delay", "dkim", "rate"})
SHOWN_LIMIT: Final = 60
PROBLEMS_LIMIT: Final = 1_000


class SettingsInvalid(Permanent):
    """The settings are wrong; `problems` lists everything, each with its key and what would do."""

    def __init__(self, problems: list[str], *, where: str) -> None:
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        super().__init__(f"settings: {count}", where=where, remedy="; ".join(problems))
        self.problems = problems


def load_settings(path: Path | None = None) -> Settings:
    """The settings of a file, environment variables over it. Raises SettingsInvalid."""
    where = str(path) if path else "environment"
    try:
        raw = read_all(path)
    except Unreadable as exc:
        raise SettingsInvalid([str(exc)], where=where) from None
    problems = [f"{name}: {_unknown(name, _variables())}" for name in unknown_variables()]
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(raw, context={"folder": path.parent if path else Path()})
    except ValidationError as exc:
        # No `from exc`: pydantic's error holds the input, and the input holds passwords.
        problems += [_problem(error) for error in exc.errors(include_url=False)]
    problems += _accounts_together(raw)
    if settings is not None:
        problems += _sizes_together(settings)
    if problems or settings is None:
        raise SettingsInvalid(_listed(problems), where=where) from None
    return settings


def _listed(problems: list[str]) -> list[str]:
    unique = list(dict.fromkeys(problems))
    more = len(unique) - PROBLEMS_LIMIT
    return unique[:PROBLEMS_LIMIT] + ([f"and {more} more"] if more > 0 else [])


def _variables() -> list[str]:
    return [ENV_PREFIX + name.upper() for name in Settings.model_fields]


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key.partition("__")[0] if key.startswith(ENV_PREFIX) else key, known, 1, 0.5)
    return f"unknown key: did you mean {near[0]}?" if near else f"unknown key: there is {', '.join(known)}"


def _path(loc: tuple[int | str, ...]) -> str:
    shown = ""
    for part in loc:
        shown += f"[{part}]" if isinstance(part, int) else f".{_clipped(str(part))}"
    return shown.removeprefix(".") or "settings"


def _problem(error: ErrorDetails) -> str:
    loc = error["loc"]
    return f"{_path(loc)}: {_what(error, loc)}{_got(error, loc)}"


def _what(error: ErrorDetails, loc: tuple[int | str, ...]) -> str:
    key = str(loc[-1]) if loc else ""
    match error["type"]:
        case "extra_forbidden" if key in NOT_YET:
            return "not available in this version"
        case "extra_forbidden":
            return _unknown(_clipped(key), _keys_beside(loc))
        case "missing":
            return "required"
        case "literal_error" if key == "after":
            return "only nothing is available in this version"
        case "literal_error" | "enum":
            return f"write {error['ctx']['expected']}".replace("'", "")
        case "model_type" | "model_attributes_type" | "dict_type":
            return "write keys and values below it"
        case "tuple_type" | "list_type":
            return "write a list (in the environment: as JSON)"
        case "bool_parsing" | "bool_type":
            return "write true or false"
        case "int_parsing" | "int_type" | "int_from_float" | "float_parsing" | "float_type":
            return "write a number"
        case _:
            message = error["msg"]
            return message[0].lower() + message[1:].removeprefix("nput should be ")


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where an unknown one stands."""
    model: type[BaseModel] | None = Settings
    for part in loc[:-1]:
        if model is None or isinstance(part, int):
            continue
        field = next((field for name, field in model.model_fields.items() if (field.alias or name) == part), None)
        model = next(iter(models_of(field.annotation)), None) if field else None
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _clipped(text: str) -> str:
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return shown if len(shown) <= SHOWN_LIMIT else shown[: SHOWN_LIMIT - 1] + "…"


def _got(error: ErrorDetails, loc: tuple[int | str, ...]) -> str:
    """What stood there, unless it may be a secret: a value in the wrong place may be one too."""
    value = error.get("input")
    if error["type"] in {"extra_forbidden", "missing"} or SECRET_KEYS & {str(part) for part in loc}:
        return ""
    if isinstance(value, bool) or value is None:
        return f" (got {str(value).lower() if value is not None else 'null'})"
    if isinstance(value, dict | list):
        return " (got keys and values)" if isinstance(value, dict) else ""
    shown = re.sub(r"//[^/@]*@", "//***@", str(value))
    return f" (got {_clipped(shown)!r})"


def _accounts_together(raw: dict[str, Any]) -> list[str]:
    """What is wrong between the keys of an account and between accounts; anything not well formed is said elsewhere."""
    given = raw.get("accounts")
    found: list[str] = []
    first_with: dict[str, int] = {}
    for index, account in enumerate(given if isinstance(given, list) else []):
        if not isinstance(account, dict):
            continue
        id = account.get("id")
        if isinstance(id, str):
            if id in first_with:
                found.append(f"accounts[{index}].id: accounts[{first_with[id]}] has the same id, {_clipped(id)!r}")
            first_with.setdefault(id, index)
        found += [f"accounts[{index}]{problem}" for problem in _account(filled_account(account))]
    return found


def _account(account: dict[str, Any]) -> Iterator[str]:
    parts = {name: account.get(name) for name in ("incoming", "outgoing")}
    if all(part is None for part in parts.values()):
        yield ": needs incoming, outgoing, or a preset that has them"
    for name, part in parts.items():
        if not isinstance(part, dict) or part.get("password") or account.get("password"):
            continue
        if "oauth2" in part or "oauth2" in account:
            continue
        smtp = part.get("smtp")
        if name == "outgoing" and isinstance(smtp, dict) and smtp.get("login") in (False, "false"):
            continue
        remedy = " or smtp.login: false" if name == "outgoing" else ""
        yield f".{name}: needs a password, here or in the account: write password: {{env: NAME}}{remedy}"


def _sizes_together(settings: Settings) -> Iterator[str]:
    limits = settings.limits
    if limits.inline > limits.message:
        yield f"limits.inline: must not be more than limits.message ({show_size(limits.message)})"
    if limits.message > limits.memory:
        yield f"limits.message: must not be more than limits.memory ({show_size(limits.memory)})"
    if settings.nats.user and not settings.nats.password:
        yield "nats.password: required beside nats.user"
    for index, account in enumerate(settings.accounts):
        if account.outgoing and account.outgoing.retry.first > account.outgoing.retry.max:
            yield f"accounts[{index}].outgoing.retry.first: must not be more than retry.max"
