"""The accounts that run in this process, put together one by one and taken apart again. Used by app.py."""

from collections.abc import Callable
from functools import partial
from typing import Final

from service.build.accounts import account_work
from service.build.commands import command_account
from service.build.shared import Shared, Work
from service.commands import Account
from service.contract import AccountPart, AccountState
from service.errors import MailbusError
from service.fleet import DRAIN_TIMEOUT_S, Kind, Part, supervise
from service.settings import AccountSettings, Settings
from service.tasks import TaskGroup

# What is said of an account that cannot be put together, or came apart: its settings name a file that is none, a bug.
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
        """How an account runs and ends."""
        return Kind(run=self._run, end=self._shared.reports.remove, host=_host)

    async def _run(self, account: AccountSettings) -> None:
        """All of an account, for ever: what none of its parts contains begins it anew, and is no other account's."""
        reports = self._shared.reports

        def report(state: AccountState, error: MailbusError) -> None:
            # None of its parts runs any more.
            if (view := reports.accounts.get(account.id)) is None or BROKEN not in view.parts:
                reports.add(account.id, [BROKEN])
            reports.part(account.id, BROKEN, state, error)

        life, shared = partial(self._life, account), self._shared
        await supervise(life, report=report, pace=shared.pace, clock=shared.clock, where=account.id)

    async def _life(self, account: AccountSettings, _: Callable[[], None]) -> None:
        try:
            # Raises Permanent where a file that the settings name is none.
            work = self._work[account.id] = account_work(self._settings, account, self._shared)
            self.commands[account.id] = command_account(self._settings, account, self._shared)
            if len(work) == 1:
                # No group and no task more: 3 KB for each of thousands of accounts that only read.
                await work[0].run()
                return
            async with TaskGroup() as group:
                for piece in work:
                    group.create_task(piece.run(), name=f"{piece.account}, {piece.part}")
        finally:
            self._work.pop(account.id, None)
            commands = self.commands.pop(account.id, None)
            try:
                if commands is not None:
                    await commands.in_hand.end(DRAIN_TIMEOUT_S)
            finally:
                self._shared.forget(account.id)


def _host(account: AccountSettings) -> str:
    if account.incoming is not None:
        server = account.incoming.imap or account.incoming.pop3
        return server.host if server is not None else ""
    return account.outgoing.smtp.host if account.outgoing is not None else ""
