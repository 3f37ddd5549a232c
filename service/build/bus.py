"""Settings → how the bus is reached, and how long things live on it. Used by app.py, check.py and cli."""

from collections.abc import Iterable

from service.bus import NatsOptions, StreamOptions
from service.settings import AccountSettings, Settings


def nats_options(settings: Settings) -> NatsOptions:
    """The bus as settings name it."""
    nats = settings.nats
    secrets = {"password": nats.password, "token": nats.token, "nkey_seed": nats.nkey_seed}
    return NatsOptions(
        servers=tuple(nats.servers),
        name=f"mailbus {settings.instance}",
        prefix=nats.prefix,
        replicas=nats.replicas,
        user=nats.user,
        password=nats.password.reveal() if nats.password else None,
        token=nats.token.reveal() if nats.token else None,
        creds=nats.creds,
        nkey_seed=nats.nkey_seed.reveal() if nats.nkey_seed else None,
        ca=nats.tls.ca,
        cert=nats.tls.cert,
        key=nats.tls.key,
        files={name: secret.file for name, secret in secrets.items() if secret is not None and secret.file is not None},
    )


def stream_options(settings: Settings) -> StreamOptions:
    """How long things live on the bus."""
    streams = settings.streams
    windows = [account.outgoing.window for account in settings.accounts if account.outgoing is not None]
    ages = (streams.in_.max_age, streams.status.max_age, streams.dead.max_age)
    in_s, status_s, dead_s = (None if age is None else age.total_seconds() for age in ages)
    defaults = StreamOptions()
    return StreamOptions(
        in_max_age_s=in_s,
        status_max_age_s=status_s,
        dead_max_age_s=dead_s,
        # One bucket for all accounts: the longest memory that any of them wants.
        sends_window_s=max(windows).total_seconds() if windows else defaults.sends_window_s,
        presence_ttl_s=settings.fleet.ttl.total_seconds(),
        max_consumers=streams.max_consumers,
        inline_bytes=settings.limits.inline,
    )


def window_problems(settings: Settings, accounts: Iterable[AccountSettings]) -> list[str]:
    """Requests are remembered in one bucket, for as long as the accounts of the start asked for."""
    has = stream_options(settings).sends_window_s
    wants = stream_options(settings.model_copy(update={"accounts": tuple(accounts)})).sends_window_s
    if has is None or (wants is not None and wants <= has):
        return []
    return ["outgoing.window: longer than that of any account at the start: this needs a restart"]
