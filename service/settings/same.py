"""Two readings of the settings → what has changed between them. Pure. Used where settings are read again."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from service.settings.files import NamedFile, Signature
from service.settings.model import AccountSettings, Settings
from service.settings.nats import NatsSettings
from service.settings.oauth2 import OAuth2Settings
from service.settings.part import Part
from service.settings.secret import Secret

PARTS: Final = ("incoming", "outgoing")
# mailbus writes it itself.
RENEWED: Final = "refresh_token"
# Secrets, authorities, and keys for tokens and signatures: whatever in an account names a file.
FILE_KEYS: Final = frozenset({"file", "ca", "key"})
NATS_SECRETS: Final = ("password", "token", "nkey_seed")


def kept(old: Mapping[str, AccountSettings], new: Mapping[str, AccountSettings]) -> dict[str, AccountSettings]:
    """The new accounts; one that has not changed is the very object that it was."""
    return {id: same(old.get(id), one) for id, one in new.items()}


def same(old: AccountSettings | None, new: AccountSettings) -> AccountSettings:
    """The old object where nothing has changed, else the new one. Comparing takes 0.1 ms."""
    return old if old is not None and _essence(old) == _essence(new) else new


def changed_sections(old: Settings, new: Settings) -> list[str]:
    """The sections beside `accounts` that differ; what NATS's secrets are in their files is read at each connect."""
    before, after = (one.model_copy(update={"nats": _by_files(one.nats)}) for one in (old, new))
    names = [name for name in Settings.model_fields if name != "accounts"]
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def _by_files(nats: NatsSettings) -> NatsSettings:
    secrets = {name: getattr(nats, name) for name in NATS_SECRETS}
    return nats.model_copy(
        update={
            name: Secret(str(one.file)) for name, one in secrets.items() if one is not None and one.file is not None
        }
    )


def files_of(account: AccountSettings) -> frozenset[Path]:
    """The files that an account's settings were read from, but those that mailbus itself writes."""
    return frozenset(path for path, _ in _files(account))


def files_as_read(accounts: Iterable[AccountSettings]) -> dict[Path, Signature | None]:
    """The same of all accounts, as each was when it was read; None where they have read it differently."""
    found: dict[Path, Signature | None] = {}
    for account in accounts:
        for path, signature in _files(account):
            found[path] = signature if found.get(path, signature) == signature else None
    return found


def files_named(written: Any) -> Iterator[str]:
    """The files that an account names, as somebody wrote it: what may be read with it."""
    if isinstance(written, dict):
        for name, value in written.items():
            if name in FILE_KEYS and isinstance(value, str):
                yield value
            else:
                yield from files_named(value)
    elif isinstance(written, list):
        for one in written:
            yield from files_named(one)


def _files(value: Any, name: str = "") -> Iterator[tuple[Path, Signature | None]]:
    match value:
        case Part():
            for field in type(value).model_fields:
                yield from _files(getattr(value, field), field)
        case tuple():
            for one in value:
                yield from _files(one)
        case NamedFile():
            yield Path(value.path), value.signature
        case Secret() if value.file is not None and name != RENEWED:
            yield value.file, value.signature


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
