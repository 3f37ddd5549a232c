"""Plain values → Settings, or SettingsInvalid with all that is wrong and what would do, and no secret in it."""

from collections.abc import Collection, Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from service.contract import AfterKind, Choice, ChoiceKind, Security
from service.errors import Permanent
from service.settings.file import ENV_PREFIX, Unreadable, read_environment, read_file, unknown_variables, variable_of
from service.settings.fill import filled, filled_account
from service.settings.model import AccountSettings, IncomingSettings, Settings
from service.settings.nats import NatsSettings
from service.settings.oauth2 import oauth2_problems
from service.settings.presets import PRESETS
from service.settings.problems import clipped, sentence, unknown_key
from service.settings.values import duration, show_duration, show_size

# 10,000 accounts with the same mistake are one mistake.
PROBLEMS_LIMIT: Final = 1_000


class SettingsInvalid(Permanent):
    """The settings are wrong; `problems` lists everything, each with its key and what would do."""

    def __init__(self, problems: list[str], *, where: str) -> None:
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        super().__init__(f"settings: {count}", where=where, remedy="; ".join(problems))
        self.problems = problems


def load_settings(path: Path | None = None) -> Settings:
    """The settings of a file, environment variables over it; without either, the defaults. Raises SettingsInvalid."""
    where = str(path) if path else "environment"
    environment = read_environment()
    try:
        raw = filled(environment, read_file(path) if path else {})
    except Unreadable as exc:
        raise SettingsInvalid([str(exc)], where=where) from None
    names = [ENV_PREFIX + name.upper() for name in Settings.model_fields]
    problems = [f"{name}: {unknown_key(name.partition('__')[0], names)}" for name in unknown_variables()]
    context = {"folder": path.parent if path else Path()}
    wrong: frozenset[tuple[int | str, ...]] = frozenset()
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(raw, context=context)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        wrong = frozenset(error["loc"][: 2 if error["loc"][0] == "accounts" else 1] for error in errors)
        problems += [sentence(error, variable_of(error["loc"], environment)) for error in errors]
    problems += _accounts_together(raw)
    sound = settings or _sound(raw, wrong, context)
    if sound is not None:
        problems += _values_together(sound, wrong)
    if problems or settings is None:
        # Without its cause: pydantic's error holds the input, and the input holds passwords.
        raise SettingsInvalid(_listed(problems), where=where) from None
    return settings


def _sound(raw: dict[str, Any], wrong: Collection[tuple[int | str, ...]], context: dict[str, Path]) -> Settings | None:
    """What is right by itself: without the sections and the accounts where something is `wrong`."""
    sound = {key: value for key, value in raw.items() if (key,) not in wrong}
    if "accounts" in sound:
        sound["accounts"] = [one for n, one in enumerate(sound["accounts"]) if ("accounts", n) not in wrong]
    try:
        return Settings.model_validate(sound, context=context)
    except ValidationError:
        return None  # a file that it names was changed meanwhile


def load_account(raw: dict[str, Any], settings: Settings, folder: Path) -> AccountSettings:
    """One account as the settings file would have it, beside the other sections there. Raises SettingsInvalid."""
    problems: list[str] = []
    account: AccountSettings | None = None
    try:
        account = AccountSettings.model_validate(raw, context={"folder": folder})
    except ValidationError as exc:
        problems += [sentence(error, None) for error in exc.errors(include_url=False)]
    problems += [problem.lstrip(".: ") for problem in _account(filled_account(raw))]
    if account is not None:
        problems += _one_together(account, settings.streams.in_.max_age)
    if problems or account is None:
        raise SettingsInvalid(_listed(problems), where="account") from None
    return account


def _listed(problems: list[str]) -> list[str]:
    unique = list(dict.fromkeys(problems))
    more = len(unique) - PROBLEMS_LIMIT
    return unique[:PROBLEMS_LIMIT] + ([f"and {more} more"] if more > 0 else [])


def _accounts_together(raw: dict[str, Any]) -> list[str]:
    """What is wrong between the keys of an account and between accounts; what is malformed is said elsewhere."""
    given = raw.get("accounts")
    found: list[str] = []
    first_with: dict[str, int] = {}
    for index, account in enumerate(given if isinstance(given, list) else []):
        if not isinstance(account, dict):
            continue
        id = account.get("id")
        if isinstance(id, str):
            if id in first_with:
                found.append(f"accounts[{index}].id: accounts[{first_with[id]}] has the same id, {clipped(id)!r}")
            first_with.setdefault(id, index)
        found += [f"accounts[{index}]{problem}" for problem in _account(filled_account(account))]
    return found


def _account(account: dict[str, Any]) -> Iterator[str]:
    parts = {name: account.get(name) for name in ("incoming", "outgoing")}
    if all(part is None for part in parts.values()):
        yield ": needs incoming, outgoing, or a preset that has them"
    yield from _secrets(account, "")
    for name, part in parts.items():
        if not isinstance(part, dict):
            continue
        yield from _secrets(part, f".{name}")
        key = "smtp" if name == "outgoing" else "imap"
        if name == "incoming":
            yield from _protocols(part)
            key = "pop3" if part.get("imap") is None and part.get("pop3") is not None else key
        server = part.get(key)
        server = server if isinstance(server, dict) else {}
        if server.get("login") in (False, "false"):
            continue
        whose = part if _has_secret(part) else account
        if not _has_secret(whose):
            remedy = ", or smtp: {login: false}" if name == "outgoing" else ""
            remedy += _hint(account)
            yield f".{name}: needs a password, here or in the account: write password: {{env: NAME}}{remedy}"
        elif whose.get("oauth2") is not None and server.get("security") == Security.NONE:
            yield f".{name}.{key}.security: none would send tokens in the clear: oauth2 wants tls or starttls"


def _protocols(incoming: dict[str, Any]) -> Iterator[str]:
    """Mail comes in by one way."""
    ways = [name for name in ("imap", "pop3") if incoming.get(name) is not None]
    if not ways:
        yield ".incoming.imap: required, or pop3"


def _has_secret(part: dict[str, Any]) -> bool:
    return any(part.get(key) is not None for key in ("password", "oauth2"))


def _secrets(part: dict[str, Any], where: str) -> Iterator[str]:
    if part.get("password") is not None and part.get("oauth2") is not None:
        yield f"{where}: keep one of password, oauth2: one is enough to log in"
    yield from (f"{where}.oauth2{problem}" for problem in oauth2_problems(part.get("oauth2")))


def _hint(account: dict[str, Any]) -> str:
    known = PRESETS.get(str(account.get("preset")))
    return f" ({known.title} wants {known.wants})" if known else ""


def _values_together(settings: Settings, wrong: Collection[tuple[int | str, ...]]) -> Iterator[str]:
    """What is wrong between values that are each right. `wrong`: the sections and accounts that are left out."""
    limits = settings.limits
    if limits.inline > limits.message:
        yield f"limits.inline: must not be more than limits.message ({show_size(limits.message)})"
    if limits.message > limits.memory:
        yield f"limits.message: must not be more than limits.memory ({show_size(limits.memory)})"
    yield from _nats(settings.nats)
    kept = settings.streams.in_.max_age if ("streams",) not in wrong else None
    numbers = (n for n in count() if ("accounts", n) not in wrong)
    for number, account in zip(numbers, settings.accounts, strict=False):
        yield from (f"accounts[{number}].{problem}" for problem in _one_together(account, kept))


def _one_together(account: AccountSettings, kept: timedelta | None) -> Iterator[str]:
    """What is wrong between an account's values, wherever it stands, and beside the other sections."""
    yield from _retry(account)
    yield from _provider(account)
    yield from _sent(account)
    yield from _after(account, kept)


def _nats(nats: NatsSettings) -> Iterator[str]:
    if bool(nats.user) != bool(nats.password):
        yield f"nats.{'password' if nats.user else 'user'}: required beside nats.{'user' if nats.user else 'password'}"
    ways = [name for name in ("user", "token", "creds", "nkey_seed") if getattr(nats, name)]
    if len(ways) > 1:
        yield f"nats: keep one of {', '.join(ways)}: one is enough to log in"
    if bool(nats.tls.cert) != bool(nats.tls.key):
        yield "nats.tls: cert and key are required together"


def _retry(account: AccountSettings) -> Iterator[str]:
    if account.outgoing and account.outgoing.retry.first > account.outgoing.retry.max:
        yield "outgoing.retry.first: must not be more than retry.max"


def _sent(account: AccountSettings) -> Iterator[str]:
    if account.outgoing and account.outgoing.sent == "always" and not (account.incoming and account.incoming.imap):
        yield "outgoing.sent: always needs incoming.imap: copies go into its Sent mailbox"


def _after(account: AccountSettings, kept: timedelta | None) -> Iterator[str]:
    """What is to be done to a mail is read from its event."""
    incoming = account.incoming
    if incoming is None:
        return
    if incoming.pop3 is not None and incoming.imap is not None:
        names = {choice.text for choice in incoming.mailboxes if choice.kind is ChoiceKind.NAME}
        if "INBOX" not in names and len(names) == len(incoming.mailboxes):
            yield "incoming.pop3: stands in for INBOX alone, which is not among mailboxes: leave it out"
        if incoming.oauth2 is not None and incoming.pop3.security is Security.NONE:
            yield "incoming.pop3.security: none would send tokens in the clear: oauth2 wants tls or starttls"
    if incoming.pop3 is not None and incoming.imap is None:
        yield from _pop3(incoming)
    elif incoming.after.keep_days:
        yield "incoming.after: keep_days is for pop3: by imap write delete, with after_delay"
    if incoming.after.keep_days and kept is not None and timedelta(days=incoming.after.keep_days) >= kept:
        yield f"incoming.after: keep_days must be less than streams.in.max_age ({show_duration(kept)}): mail would stay"
    if incoming.after.waits and kept is not None and incoming.after_delay >= kept:
        yield f"incoming.after_delay: must be less than streams.in.max_age ({show_duration(kept)}): mail would stay"


def _pop3(incoming: IncomingSettings) -> Iterator[str]:
    """What POP3 does not have."""
    if incoming.mailboxes != (Choice(ChoiceKind.NAME, "INBOX"),) or incoming.exclude:
        yield "incoming.mailboxes: POP3 has INBOX alone: leave it out, or read by imap"
    if incoming.after.kind in {AfterKind.SEEN, AfterKind.MOVE}:
        yield f"incoming.after: POP3 cannot do {incoming.after.kind}: write nothing, delete, or {{keep_days: N}}"
    if incoming.pop3 is not None and incoming.pop3.apop and incoming.oauth2 is not None:
        yield "incoming.pop3.apop: is for passwords: leave it out beside oauth2"


def _provider(account: AccountSettings) -> Iterator[str]:
    known = PRESETS.get(account.preset or "")
    if known is None or account.incoming is None:
        return
    imap = account.incoming.imap
    if imap is None:
        return
    if known.idle and imap.idle >= duration(known.idle):
        yield f"incoming.imap.idle: must be less than {known.idle}: {known.title} ends what is silent for that long"
    if known.connections is not None and imap.connections > known.connections:
        yield f"incoming.imap.connections: must not be more than {known.connections}: {known.title} allows no more"
