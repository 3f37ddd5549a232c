"""The settings file and the bucket `mail-accounts` → all accounts of the fleet, and those that are paused.

Every process hears the bucket's changes and comes to the same. Where both have an account, the file's counts.
"""

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import msgspec

from service.aside import aside, mounts_of
from service.build import window_problems
from service.bus import KeyChange, KeyValue
from service.catalog.entries import Entry, load_entry, opened
from service.catalog.seal import Sealer
from service.clock import Clock
from service.contract import ACCOUNT_ID, AccountState
from service.errors import Permanent, Transient
from service.fleet import AccountReports, Roster
from service.observe import log, metrics
from service.settings import AccountSettings, Settings, SettingsInvalid, files_named, files_of, load_account, same
from service.tasks import TaskGroup

LISTEN_AGAIN_S: Final = 1.0
# More than may wait for one file system that says nothing (aside.py).
READ_AT_ONCE: Final = 20


class Catalog:
    """`heard` once the bucket was read: before that nothing may be begun, for it may be paused."""

    def __init__(
        self,
        bucket: KeyValue,
        settings: Settings,
        folder: Path,
        roster: Roster[AccountSettings],
        reports: AccountReports,
        clock: Clock,
    ) -> None:
        self.bucket = bucket
        self.sealer = Sealer([key.reveal() for key in settings.seal.keys])
        self.heard = asyncio.Event()
        self.all: Mapping[str, AccountSettings] = {}
        self.paused: frozenset[str] = frozenset()
        self._settings = settings
        self._folder = folder
        self._roster = roster
        self._reports = reports
        self._clock = clock
        self._of_file = {account.id: account for account in settings.accounts}
        self._entries: dict[str, Entry] = {}
        self._of_bus: dict[str, AccountSettings] = {}
        self._files: dict[str, frozenset[Path]] = {}
        # What the bucket's accounts that could not be taken were refused for: a secret that is not there yet, say.
        self._refused: dict[str, str] = {}
        # Whether the settings file has accounts that were not taken.
        self.file_refused = False

    @property
    def refused(self) -> bool:
        """Whether there are accounts that were not taken as they are written."""
        return self.file_refused or bool(self._refused)

    def source(self, account: str) -> str:
        """Where an account stands: `file` or `bus`."""
        return "file" if account in self._of_file else "bus"

    @property
    def added(self) -> list[str]:
        """Those that the bucket has, by id."""
        return [id for id, entry in self._entries.items() if entry.account is not None]

    def owner(self, account: str) -> str | None:
        """The process that has an account; None where it is paused."""
        return None if account in self.paused else self._roster.owner(account)

    async def check(self, account: dict[str, Any]) -> AccountSettings:
        """An account as somebody wrote it. Raises SettingsInvalid with all that is wrong, Transient."""
        load = partial(load_account, account, self._settings, self._folder)
        if files := [self._folder / name for name in files_named(account)]:
            # Written otherwise, it may name no file any more that says nothing.
            version, where = crc32(msgspec.json.encode(account)), f"account {account.get('id')}"
            found = await aside(load, where=where, kind="accounts", version=version, place=mounts_of(files))
        else:
            found = load()
        if problems := window_problems(self._settings, [found]):
            raise SettingsInvalid(problems, where="account")
        return found

    async def coming(self, account: str) -> bool:
        """Whether the bucket has an account of this id otherwise than it is known here. Raises Transient.

        Not heard of yet, or not to be read: whoever would say that there is none asks the bucket itself first.
        """
        there = await self.bucket.get(account)
        entry = load_entry(there.value) if there is not None else None
        if entry is None or entry.account is None:
            return False
        heard = self._entries.get(account)
        return account in self._refused or heard is None or heard.account != entry.account

    def take_file(self, accounts: Mapping[str, AccountSettings]) -> None:
        """The accounts of the settings file from now on; those of `all` that have not changed are the same objects."""
        self.file_refused = False
        self._of_file = dict(accounts)
        self._apply()

    def files(self) -> set[Path]:
        """The files that the bucket's accounts name. Called from another thread too."""
        return {file for files in list(self._files.values()) for file in files}

    async def read_again(self, changed: Collection[Path], *, refused: bool) -> None:
        """Take the bucket's accounts anew that name a file which has changed; one that is wrong stays as it was.

        `refused`: and those that could not be taken before.
        """
        those = {id for id, files in self._files.items() if not files.isdisjoint(changed)}
        if refused:
            those |= self._refused.keys()
        await self._read_all(sorted(those))
        if those:
            self._apply()

    async def once_heard(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what depends on all accounts being known: before, one that was added over the bus looks like none."""
        try:
            await self.heard.wait()
        except BaseException:
            work.close()
            raise
        await work

    async def follow(self) -> None:
        """Hear of the bucket's accounts, for ever."""
        while True:
            try:
                async with aclosing(self.bucket.watch()) as watch:
                    await self._hear_all(await anext(watch))
                    self._apply()
                    self.heard.set()
                    async for changes in watch:
                        await self._hear_each(changes)
                        self._apply()
            except Transient as exc:
                log.warning("accounts_not_heard", error=str(exc))
                await self._clock.sleep(LISTEN_AGAIN_S)

    async def _hear_all(self, changes: list[KeyChange]) -> None:
        """All keys as they are. Those that are as before are not read again: NATS may go and come back often."""
        for id in self._entries.keys() - {change.key for change in changes}:
            self._forget(id)
        await self._hear_each(changes)

    async def _hear_each(self, changes: list[KeyChange]) -> None:
        await self._read_all([change.key for change in changes if self._hear(change)])

    def _hear(self, change: KeyChange) -> bool:
        """Know what a key says now; gives whether its account has to be read."""
        entry = load_entry(change.value) if change.value is not None else None
        if entry is None or not ACCOUNT_ID.fullmatch(change.key):
            self._forget(change.key)
            return False
        before, self._entries[change.key] = self._entries.get(change.key), entry
        if entry.account is None:
            self._forget(change.key)
            self._entries[change.key] = entry
            return False
        return before is None or before.account != entry.account

    async def _read_all(self, ids: Sequence[str]) -> None:
        """Read some at the same time: each that waits for a file which says nothing holds up what comes behind it."""
        left = iter(ids)

        async def read() -> None:
            for id in left:
                if id in self._entries:  # heard of meanwhile: it is gone
                    await self._read(id)
                await asyncio.sleep(0)  # one takes 0.2 ms to read

        async with TaskGroup() as group:
            for number in range(min(READ_AT_ONCE, len(ids))):
                group.create_task(read(), name=f"accounts {number}")

    def _forget(self, id: str) -> None:
        for kept_here in (self._entries, self._of_bus, self._files, self._refused):
            kept_here.pop(id, None)

    async def _read(self, id: str) -> None:
        """Take an account as it is written; where that cannot be, what it was holds."""
        entry, refused = self._entries[id], ""
        try:
            account = await self.check(opened(entry.account or {}, self.sealer) | {"id": id})
        except (Permanent, Transient) as exc:
            refused = str(exc)
            if self._refused.get(id) != refused:
                log.error("account_not_taken", account=id, error=refused)
        except Exception as exc:  # noqa: BLE001 a bug over one account is counted, and the others are taken
            metrics.BUGS.inc()
            log.error("bug", where="accounts", account=id, exc_info=exc)
            refused = f"a bug in mailbus: {type(exc).__name__}"
        if self._entries.get(id) is not entry:
            return  # another was heard of meanwhile, and is read by whoever heard of it
        if refused:
            self._refused[id] = refused
            return
        # After a start nothing is applied yet: one that moves here is then the settings file's.
        before = self.all.get(id) or self._of_file.get(id)
        self._of_bus[id], self._files[id] = same(before, account), files_of(account)
        self._refused.pop(id, None)

    def _apply(self) -> None:
        before, paused_before = self.all, self.paused
        self.all = self._of_bus | self._of_file
        self.paused = frozenset(id for id, entry in self._entries.items() if entry.paused and id in self.all)
        alike = self.all.keys() == before.keys() and all(self.all[id] is account for id, account in before.items())
        if self.heard.is_set() and alike and self.paused == paused_before:
            return  # NATS was away, and nobody changed anything
        running = {id: account for id, account in self.all.items() if id not in self.paused}
        mine = self._roster.presence.instance
        said = [(id, AccountState.REMOVED) for id in before.keys() - self.all.keys()]
        # One that comes back is paused as it was removed, and would else be missed by whoever added it. Not at a start.
        told = before.keys() if not self.heard.is_set() else self.all.keys()
        said += [(id, AccountState.PAUSED) for id in self.paused - paused_before if id in told]
        said += [(id, AccountState.RESUMED) for id in paused_before - self.paused if id in self.all]
        for id, state in said:
            if self._roster.owner(id) == mine:
                self._reports.say(id, state)
        self._roster.know(running)
        changed = sum(1 for id, account in self.all.items() if id in before and before[id] is not account)
        added, removed = len(self.all.keys() - before.keys()), len(before.keys() - self.all.keys())
        log.info("accounts_taken", added=added, changed=changed, removed=removed, paused=len(self.paused))
