"""A pydantic error → one sentence: the key, what would do, and what stood there unless it may be a secret. Pure."""

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from service.settings.model import Settings
from service.settings.values import UNSHOWN

# What is wrong there may be a secret, whatever key of the section it stands under.
SECRET_KEYS: Final = frozenset({"password", "token", "nkey_seed", "oauth2", "seal"})
# Where a whole section was wanted: what stands there instead may hold everything, passwords too.
SECTION_ERRORS: Final = frozenset({"model_type", "model_attributes_type", "dict_type", "tuple_type", "list_type"})
SHOWN_LIMIT: Final = 60
KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}(?![A-Za-z0-9_.-])")
# Passwords and keys that something made.
UNBROKEN: Final = re.compile(r"[A-Za-z0-9+/=_-]{24}")


def sentence(error: ErrorDetails, variable: str | None) -> str:
    """One error of pydantic as an operator reads it. `variable`: of the environment, where it comes from there."""
    loc = error["loc"]
    where = f"{path_of(loc)} ({clipped(variable)})" if variable else path_of(loc)
    return f"{where}: {_what(error, loc)}{_got(error, loc)}"


def path_of(loc: Sequence[int | str]) -> str:
    """Where it stands: `accounts[0].incoming.imap.port`."""
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{safe_key(part)}" for part in loc)
    return shown.removeprefix(".") or "settings"


def safe_key(key: str) -> str:
    """A key as it may be shown: it ends where a key ends. YAML reads `{password:secret}` as one key."""
    found = KEY.match(key)
    start = found[0] if found else ""
    return start if start == key else start + "…"


def clipped(text: str) -> str:
    """A value, on one line and not too long."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return shown if len(shown) <= SHOWN_LIMIT else shown[: SHOWN_LIMIT - 1] + "…"


def unknown_key(key: str, known: Sequence[str]) -> str:
    """What to say of a key that nobody knows."""
    shown = safe_key(key)
    if shown != key and shown.removesuffix("…") in known:
        return "unknown key: write a space after the colon"
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(shown.lower(), by_lower, 1, 0.5)
    return f"unknown key: did you mean {by_lower[near[0]]}?" if near else f"unknown key: there is {', '.join(known)}"


def _what(error: ErrorDetails, loc: Sequence[int | str]) -> str:
    key = str(loc[-1]) if loc else ""
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return unknown_key(key, _keys_beside(loc))
        case "missing":
            return "required"
        case "literal_error" | "enum":
            return f"write {context['expected']}".replace("'", "")
        case "tuple_type" | "list_type":
            return "write a list (in the environment: as JSON)"
        case kind if kind in SECTION_ERRORS:
            return "write keys and values below it"
        case "bool_parsing" | "bool_type":
            return "write true or false"
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "string_pattern_mismatch" | "string_too_long":
            return "write a name, without spaces, ; and ="
        case "mailbus" | "mailbus_unshown":
            return error["msg"]
        case _:
            return "write a number"


def _keys_beside(loc: Sequence[int | str]) -> list[str]:
    """The keys that are known where an unknown one stands."""
    model: type[BaseModel] | None = Settings
    for part in loc[:-1]:
        if model is None or isinstance(part, int):
            continue
        field = next((field for name, field in model.model_fields.items() if (field.alias or name) == part), None)
        model = next(models_of(field.annotation), None) if field else None
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings' classes inside a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_of(inner)


def _got(error: ErrorDetails, loc: Sequence[int | str]) -> str:
    """What stood there, unless it may be a secret: a value in the wrong place may be one too, or an @ behind one."""
    value = error.get("input")
    names = {str(part) for part in loc}
    if error["type"] in {"extra_forbidden", "missing", UNSHOWN} or names & SECRET_KEYS:
        return ""
    if value is None:
        return " (got null)"
    if error["type"] in SECTION_ERRORS or isinstance(value, dict | list):
        return ""
    if isinstance(value, bool):
        return f" (got {str(value).lower()})"
    shown = str(value)
    if "@" in shown or not shown.isprintable() or len(shown) > SHOWN_LIMIT or UNBROKEN.search(shown):
        return ""
    return f" (got {shown!r})"
