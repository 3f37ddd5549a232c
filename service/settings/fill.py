"""What a preset fills in where an account's settings say nothing. Used by model.py, and by load.py for its checks."""

from collections.abc import Mapping
from typing import Any

from service.settings.presets import PRESETS, Preset


def preset_name(value: Any) -> Any:
    """YAML reads 163 as a number."""
    return str(value) if type(value) is int else value


def filled(given: dict[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """What is given over what a preset says, key by key. A key given as null stays null."""
    result = dict(preset)
    for key, value in given.items():
        below = preset.get(key)
        result[key] = filled(value, below) if isinstance(value, dict) and isinstance(below, dict) else value
    return result


def filled_account(account: dict[str, Any]) -> dict[str, Any]:
    """An account with what its preset fills in. Something wrong in `preset` is left for its own field to say."""
    name = preset_name(account.get("preset"))
    known = PRESETS.get(name) if isinstance(name, str) else None
    if known is None:
        return account
    whole = filled(account, _by_pop3(known) if _wants_pop3(account) else known.fills)
    incoming = whole.get("incoming")
    if isinstance(incoming, dict) and isinstance(incoming.get("imap"), dict) and known.connections is not None:
        whole["incoming"] = incoming | {"imap": {"connections": known.connections} | incoming["imap"]}
    for part in (whole, whole.get("incoming"), whole.get("outgoing")):
        oauth2 = part.get("oauth2") if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(oauth2, dict):
            consent = known.oauth2.get(str(oauth2.get("grant")))
            part["oauth2"] = filled(oauth2, consent.fills) if consent else oauth2
    return whole


def _wants_pop3(account: dict[str, Any]) -> bool:
    """Whether an account says that it is read by POP3, and nothing of IMAP."""
    incoming = account.get("incoming")
    return isinstance(incoming, dict) and incoming.get("pop3") is not None and incoming.get("imap") is None


def _by_pop3(known: Preset) -> Mapping[str, Any]:
    """What a preset fills in, with its POP3 server in the place of its IMAP server."""
    if "incoming" not in known.fills:
        return known.fills
    return {**known.fills, "incoming": {"pop3": {"host": known.pop3} if known.pop3 else {}}}
