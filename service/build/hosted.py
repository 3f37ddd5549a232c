"""The accounts that run in this process, put together one by one and taken apart again. Used by app.py."""

from collections.abc import Sequence

from service.build.accounts import account_work
from service.build.commands import command_account
from service.build.shared import Shared, Work
from service.commands import Account
from service.fleet import Kind, Piece
from service.settings import AccountSettings, Settings


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
        work = account_work(self._settings, account, self._shared)
        self._work[account.id] = work
        self.commands[account.id] = command_account(self._settings, account, self._shared)
        return [Piece(f"{piece.account}, {piece.part}", piece.run) for piece in work]

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
