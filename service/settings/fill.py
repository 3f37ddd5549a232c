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
    whole = filled(account, _with_pop3(known, account))
    incoming = whole.get("incoming")
    if isinstance(incoming, dict) and isinstance(incoming.get("imap"), dict) and known.connections is not None:
        whole["incoming"] = incoming | {"imap": {"connections": known.connections} | incoming["imap"]}
    for part in (whole, whole.get("incoming"), whole.get("outgoing")):
        oauth2 = part.get("oauth2") if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(oauth2, dict):
            consent = known.oauth2.get(str(oauth2.get("grant")))
            part["oauth2"] = filled(oauth2, consent.fills) if consent else oauth2
    return whole


def _with_pop3(known: Preset, account: dict[str, Any]) -> Mapping[str, Any]:
    """What a preset fills in: its POP3 server only where the account asks for it, its IMAP server then not unasked."""
    incoming = account.get("incoming")
    if not isinstance(incoming, dict) or incoming.get("pop3") is None or "incoming" not in known.fills:
        return known.fills
    imap = {"imap": known.fills["incoming"]["imap"]} if incoming.get("imap") is not None else {}
    return {**known.fills, "incoming": {"pop3": {"host": known.pop3} if known.pop3 else {}} | imap}
