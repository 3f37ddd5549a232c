"""The accounts that run in this process, put together one by one and taken apart again. Used by app.py."""

from collections.abc import Callable, Sequence
from typing import Final

from service.build.accounts import account_work
from service.build.commands import command_account
from service.build.shared import Shared, Work, supervised
from service.commands import Account
from service.contract import AccountPart
from service.errors import Permanent
from service.fleet import Kind, Part, Piece
from service.settings import AccountSettings, Settings

# What is said of an account whose settings name a file that is none.
BROKEN: Final = Part(AccountPart.SETTINGS)


class Hosted:
    """`commands` are the accounts as commands see them, by id."""

    def __init__(self, settings: Settings, shared: Shared) -> None:
        self._settings = settings
        self._shared = shared
        self._work: dict[str, list[Work]] = {}
        self.commands: dict[str, Account] = {}

    @property
    def work(self) -> list[Work]:
        """All that is done here."""
        return [piece for work in self._work.values() for piece in work]

    def kind(self) -> Kind[AccountSettings]:
        """How an account is begun and ended."""
        return Kind(begin=self._begin, end=self._end, host=_host)

    def _begin(self, account: AccountSettings) -> Sequence[Piece]:
        try:
            work = account_work(self._settings, account, self._shared)
        except Permanent as exc:
            # A file that the settings name: one account's trouble is no other's.
            return [self._broken(account.id, exc)]
        self._work[account.id] = work
        self.commands[account.id] = command_account(self._settings, account, self._shared)
        return [Piece(f"{piece.account}, {piece.part}", piece.run) for piece in work]

    def _broken(self, account: str, error: Permanent) -> Piece:
        """An account that cannot be put together, and says so until it is changed."""
        self._shared.forget(account)
        self._shared.reports.add(account, [BROKEN])

        async def life(_: Callable[[], None]) -> None:
            raise error

        run = supervised(life, account, BROKEN, self._shared, None)
        return Piece(account, run)

    def _end(self, account: str) -> None:
        self._work.pop(account, None)
        self.commands.pop(account, None)
        self._shared.forget(account)
        self._shared.reports.remove(account)


def _host(account: AccountSettings) -> str:
    if account.incoming is not None:
        server = account.incoming.imap or account.incoming.pop3
        return server.host if server is not None else ""
    return account.outgoing.smtp.host if account.outgoing is not None else ""
