"""An account as the bucket `mail-accounts` has it: as one writes it in the settings file, with its secrets sealed."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from service.catalog.seal import Sealer

SEALED: Final = "sealed"
_OAUTH2: Final = ("client_secret", "refresh_token")


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One key. `account`: None where the settings file has it, or nobody any more, and only `paused` is said here."""

    account: dict[str, Any] | None = None
    paused: bool = False


_ENTRY: Final = msgspec.json.Decoder(Entry)


def load_entry(value: bytes) -> Entry | None:
    """A key's value; None where it is none."""
    try:
        return _ENTRY.decode(value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def sealed(account: dict[str, Any], sealer: Sealer) -> dict[str, Any]:
    """The account with every secret that is written out sealed. Raises Permanent where there is no key."""
    return _with_secrets(account, lambda value: {SEALED: sealer.seal(value)} if isinstance(value, str) else value)


def opened(account: dict[str, Any], sealer: Sealer) -> dict[str, Any]:
    """The account as it was written. Raises Permanent where the key is missing."""

    return _with_secrets(account, lambda value: sealer.open(value[SEALED]) if _is_sealed(value) else value)


def resealed(account: dict[str, Any], sealer: Sealer) -> dict[str, Any]:
    """The account with every sealed secret sealed by the first key. Raises Permanent where the key is missing."""
    return _with_secrets(account, lambda value: {SEALED: sealer.renew(value[SEALED])} if _is_sealed(value) else value)


def _is_sealed(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {SEALED} and isinstance(value[SEALED], str)


def _with_secrets(account: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    found = _part(account, change)
    for name in ("incoming", "outgoing"):
        if isinstance(found.get(name), dict):
            found[name] = _part(found[name], change)
    relays = found["outgoing"].get("relays") if isinstance(found.get("outgoing"), dict) else None
    if isinstance(relays, list):
        found["outgoing"]["relays"] = [_part(one, change) if isinstance(one, dict) else one for one in relays]
    return found


def _part(part: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    found = dict(part)
    if found.get("password") is not None:
        found["password"] = change(found["password"])
    if isinstance(oauth2 := found.get("oauth2"), dict):
        found["oauth2"] = {
            key: change(value) if key in _OAUTH2 and value is not None else value for key, value in oauth2.items()
        }
    return found
