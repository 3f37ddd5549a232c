"""One account's access token: kept while it is good, renewed early and once for all who need it.

Used by imap/ and smtp/ as a TokenSource (login/sasl.py), and by the composition root, which supervises `watch`.
"""

import asyncio
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from service.aside import aside, mounts_of
from service.clock import Clock, backoff_s
from service.errors import AuthRefused, MailbusError, Permanent, Transient
from service.login import LOGIN_PAUSE_S
from service.oauth.ask import ask
from service.oauth.options import Grant, OAuthOptions
from service.oauth.store import read_secret, write_secret
from service.oauth.wire import Granted, granted, question
from service.observe import log, metrics
from service.tasks import finished

T = TypeVar("T")

# Renewed so long before its end: a connection takes up to half a minute from here to its login.
EARLY_S: Final = 300.0
EARLY_PART: Final = 0.2
# Whoever is cancelled while a new token is on its way lets it arrive: the old refresh token may be void already.
FINISH_S: Final = 10.0


class Tokens:
    """The token of one account's `oauth2`. Any number of tasks may ask at once."""

    def __init__(self, options: OAuthOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._turn = asyncio.Lock()
        self._access = ""
        self._renew_at = 0.0
        self._ends_at = 0.0
        self._refresh = options.refresh_token
        self._seen_in_file = options.refresh_token
        # Why nobody asks at the moment, and until when.
        self._failure: MailbusError | None = None
        self._ask_again_at = 0.0
        self._failures = 0
        # A refresh token that only this process knows.
        self._unkept: Permanent | None = None
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"Tokens({self._options.where})"

    @property
    def left_s(self) -> float:
        """Seconds for which the token is still good."""
        return max(0.0, self._ends_at - self._clock.monotonic()) if self._access else 0.0

    @property
    def unkept(self) -> Permanent | None:
        """Why the refresh token is nowhere but in memory; None where it is kept."""
        return None if self._unkept is None else copy.copy(self._unkept)

    async def get(self) -> str:
        """A token that is good for now. Raises AuthRefused, Transient, Permanent."""
        if self._clock.monotonic() < self._renew_at:
            return self._access
        async with self._turn:
            if self._clock.monotonic() < self._renew_at:
                return self._access
            return await self._made_anew()

    async def renew(self, refused: str) -> str:
        """Another token in place of one that a server refused. Raises as `get`."""
        async with self._turn:
            if refused == self._access:
                self._renew_at = self._ends_at = 0.0
            if self._clock.monotonic() < self._renew_at:
                return self._access  # somebody was here before us
            return await self._made_anew()

    async def watch(self, proved: Callable[[], None]) -> None:
        """Get a token, then wait until a refresh token cannot be kept; supervised by itself, never returns.

        Raises as `get`, and Permanent while there is a refresh token that is nowhere but in memory.
        """
        if self._unkept is not None and self._options.refresh_file is not None:
            async with self._turn:
                await finished(self._keep(self._refresh), FINISH_S)
        if self._unkept is None:
            await self.get()
        while self._unkept is None:
            proved()
            self._news.clear()
            await self._news.wait()
        raise copy.copy(self._unkept)

    async def _made_anew(self) -> str:
        now = self._clock.monotonic()
        if self._failure is not None and now < self._ask_again_at:
            if now < self._ends_at:
                return self._access
            raise copy.copy(self._failure)
        try:
            await finished(self._ask(), FINISH_S)
        except MailbusError as exc:
            self._failures += 1
            self._failure = copy.copy(exc)
            self._ask_again_at = now + self._pause_s(exc)
            result = "refused" if isinstance(exc, AuthRefused) else "failed"
            metrics.TOKENS.labels(result=result).inc()
            log.warning("token_not_renewed", account=self._options.account, error=str(exc))
            if isinstance(exc, Transient) and now < self._ends_at:
                return self._access  # renewed early: the old one is still good
            raise
        return self._access

    def _pause_s(self, error: MailbusError) -> float:
        if isinstance(error, Transient):
            pause = backoff_s(self._failures, first_s=1, factor=2, max_s=LOGIN_PAUSE_S, chance=self._clock.chance())
            return max(pause, error.retry_after_s or 0.0)
        return LOGIN_PAUSE_S

    async def _ask(self) -> None:
        options, began = self._options, self._clock.monotonic()
        refresh = await self._current_refresh()
        answer = await ask(options, question(options, refresh, self._clock.now()))
        secrets = (options.client_secret, refresh, self._access)
        made = granted(answer, options, secrets, self._clock.now())
        if options.grant is Grant.REFRESH_TOKEN and made.refresh and made.refresh != refresh:
            # Before the token is used: a crash from here on finds the refresh token that is good.
            await self._keep(made.refresh)
        self._take(made, began)

    def _take(self, made: Granted, began: float) -> None:
        self._access = made.access
        self._ends_at = began + made.life_s
        self._renew_at = self._ends_at - min(EARLY_S, made.life_s * EARLY_PART)
        self._failure, self._failures = None, 0
        metrics.TOKENS.labels(result="renewed").inc()
        log.info("token_renewed", account=self._options.account, life_s=round(made.life_s))

    # -- the refresh token ------------------------------------------------------------------------------------

    async def _current_refresh(self) -> str:
        """The refresh token: what an operator, or another process, has put into its file meanwhile goes first.

        Raises Transient where the file says nothing: what it holds may be the one that is good.
        """
        path = self._options.refresh_file
        if path is not None:
            try:
                found = await self._aside(partial(read_secret, path), path)
            except (OSError, UnicodeDecodeError):
                return self._refresh
            if found and found != self._seen_in_file:
                self._refresh = self._seen_in_file = found
                self._unkept = None
        return self._refresh

    async def _aside(self, work: Callable[[], T], path: Path) -> T:
        return await aside(work, where=str(path), kind="tokens", place=mounts_of([path]))

    async def _keep(self, refresh: str) -> None:
        """Remember a new refresh token, on disk where settings name a file."""
        options = self._options
        self._refresh = refresh
        reason = "settings hold it as text or in a variable"
        if options.refresh_file is not None:
            try:
                path = options.refresh_file
                await self._aside(partial(write_secret, path, refresh), path)
            except OSError as exc:
                reason = f"{options.refresh_file}: {exc.strerror or type(exc).__name__}"
            except Transient as exc:
                reason = f"{options.refresh_file}: {exc.what}"
            else:
                self._seen_in_file = refresh
                self._unkept = None
                log.info("refresh_token_kept", account=options.account)
                return
        self._unkept = Permanent(
            f"the provider gave a new refresh token, and it cannot be kept ({reason}): it is lost when mailbus ends",
            where=options.where,
            remedy="write refresh_token: {file: PATH}, in a folder where mailbus may write",
        )
        log.error("refresh_token_not_kept", account=options.account, error=str(self._unkept))
        self._news.set()
