"""Two readings of the settings → what has changed between them. Pure. Used where settings are read again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from service.settings.model import AccountSettings, Settings
from service.settings.oauth2 import OAuth2Settings
from service.settings.values import Secret

PARTS: Final = ("incoming", "outgoing")


def kept(old: Mapping[str, AccountSettings], new: Mapping[str, AccountSettings]) -> dict[str, AccountSettings]:
    """The new accounts; one that has not changed is the very object that it was."""
    return {id: old[id] if id in old and _essence(old[id]) == _essence(one) else one for id, one in new.items()}


def changed_sections(old: Settings, new: Settings) -> list[str]:
    """The sections beside `accounts` that differ."""
    return [name for name in Settings.model_fields if name != "accounts" and getattr(old, name) != getattr(new, name)]


def secret_files(settings: Settings) -> set[Path]:
    """The files that accounts' secrets were read from, but those that mailbus itself writes."""
    found: set[Path] = set()
    for account in settings.accounts:
        for part in (account, account.incoming, account.outgoing):
            if part is None:
                continue
            secrets = [part.password] + ([part.oauth2.client_secret] if part.oauth2 is not None else [])
            secrets += [relay.password for relay in account.outgoing.relays] if part is account.outgoing else []
            found |= {secret.file for secret in secrets if secret.file is not None}
    return found


def _essence(account: AccountSettings) -> AccountSettings:
    """The account without the refresh tokens that are kept in files: they are renewed, and nobody changed anything."""
    update: dict[str, object] = {"oauth2": _without_token(account.oauth2)}
    for name in PARTS:
        part = getattr(account, name)
        if part is not None:
            update[name] = part.model_copy(update={"oauth2": _without_token(part.oauth2)})
    return account.model_copy(update=update)


def _without_token(oauth2: OAuth2Settings | None) -> OAuth2Settings | None:
    if oauth2 is None or oauth2.refresh_token.file is None:
        return oauth2
    return oauth2.model_copy(update={"refresh_token": Secret(str(oauth2.refresh_token.file))})
