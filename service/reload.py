"""The settings file, and the files that accounts name, as they change → accounts of the running process.

What could not be taken is tried again, less and less often: a secret may be mounted later than the settings that name
it, and then nothing changes that was looked at.

Looked at by name and not by the kernel's events: that works over network file systems and for volumes that
Kubernetes swaps under a link, and one `stat` a file costs nothing. Used by app.py.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final
from zlib import crc32

from service.aside import Kind, aside
from service.build import window_problems
from service.catalog import Catalog
from service.clock import Clock, backoff_s
from service.errors import Transient
from service.observe import log, metrics
from service.settings import (
    AccountSettings,
    Settings,
    SettingsInvalid,
    Signature,
    changed_sections,
    files_as_read,
    files_of,
    kept,
    load_settings,
    signature_in,
)
from service.tasks import TaskGroup

LOOK_EVERY_S: Final = 2.0
AGAIN_MAX_S: Final = 60.0
# 10,000 accounts take 6 s of a processor, and where there is less of one, longer. New keys of thousands of domains take
# more than this, are looked through all the same, and need not be at the next try.
READ_LIMIT_S: Final = 120.0
# So many looks at the same time, each at a folder; where there are more folders, some share one, but the settings file.
# A file system that is away keeps no more threads than that, of those that may be kept (aside.py).
FOLDERS_LIMIT: Final = 8
FOLDERS_SHOWN: Final = 5

# Files, and what of each changes with it; None of one that is not there.
Seen = Mapping[Path, Signature | None]
# All accounts of the file by id, the other sections that differ, and all files that are looked at.
Found = tuple[Mapping[str, AccountSettings], list[str], set[Path]]


def as_read(file: Path | None, settings: Settings, was: Signature | None = None) -> Seen:
    """The files that settings were read from, as they were then. `was`: the settings file, before it was read.

    To look at them now would miss what has changed since: reading takes seconds where there are thousands of accounts.
    """
    return {**files_as_read(settings.accounts), **({} if file is None else {file: was})}


class Reload:
    """The catalog is given all accounts of the file whenever it, or a file that they name, has changed and is right.

    `seen`: the files as they were when `settings` were read; NATS may have been waited for since. None of one that has
    to be read again.
    """

    def __init__(self, file: Path | None, settings: Settings, seen: Seen, catalog: Catalog, clock: Clock) -> None:
        self._file = file
        self._settings = settings
        self._catalog = catalog
        self._clock = clock
        self._named = set(seen)
        self._problems: list[str] = []
        self._tries = 0
        self._again_at = 0.0
        # Of what was taken; what a bug kept from being taken is tried again.
        self._seen = seen
        self._silent: set[str] = set()
        # How often the settings file was seen to change: what hangs over one version holds up no later one.
        self._version = 0

    async def run(self) -> None:
        """Look for changes, for ever."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            now = await self._look({*self._named, *self._catalog.files()})
            # One that is named since was read before anybody looked at it: it is read once more.
            seen = self._seen
            changed = {path for path, found in now.items() if path not in seen or seen[path] != found}
            self._version += self._file in changed
            again = self._clock.monotonic() >= self._again_at
            if changed & self._named or (again and self._catalog.file_refused):
                await self.read()
            await self._catalog.read_again(changed, refused=again)
            self._pause(again=again)
            self._seen = now

    async def _look(self, files: Collection[Path]) -> Seen:
        """The files as they are; those of a folder that says nothing are as they were, and hold up no other."""
        seen: dict[Path, Signature | None] = {}

        async def look(folder: str, those: Collection[Path]) -> None:
            try:
                # Those of accounts, were there ever so many away, never keep the settings file from being looked at.
                kind: Kind = "look" if self._file in those else "folders"
                seen.update(await aside(partial(_look, those), where=f"look at {folder}", kind=kind))
                self._silent.discard(folder)
            except Transient as exc:
                seen.update({path: self._seen[path] for path in those if path in self._seen})
                if folder not in self._silent:
                    log.warning("files_not_seen", error=str(exc), folders=_first_folders(those))
                self._silent.add(folder)

        async with TaskGroup() as group:
            for folder, those in _by_folder(files, alone=self._file).items():
                group.create_task(look(folder, those), name=folder)
        return seen

    def _pause(self, *, again: bool) -> None:
        """When what is refused by now is tried again."""
        metrics.SETTINGS_REFUSED.set(self._catalog.refused)
        if not self._catalog.refused:
            self._tries, self._again_at = 0, 0.0
        elif again:
            self._tries += 1
            chance = self._clock.chance()
            pause_s = backoff_s(self._tries, first_s=LOOK_EVERY_S, factor=2, max_s=AGAIN_MAX_S, chance=chance)
            self._again_at = self._clock.monotonic() + pause_s

    async def read(self) -> None:
        """Read the settings again. What is wrong is said, once, and everything stays as it was."""
        if self._file is None:
            return
        try:
            work = partial(self._found, self._file)
            where, version = str(self._file), self._version
            accounts, sections, named = await aside(
                work, where=where, kind="settings", version=version, limit_s=READ_LIMIT_S
            )
        except (SettingsInvalid, Transient) as exc:
            problems = exc.problems if isinstance(exc, SettingsInvalid) else [str(exc)]
            if problems != self._problems:
                log.error("settings_not_taken", file=str(self._file), problems=problems)
            self._problems, self._catalog.file_refused = problems, True
            return
        self._problems = []
        if sections:
            log.warning("settings_need_restart", sections=sections)
        self._named = named
        self._catalog.take_file(accounts)

    def _found(self, file: Path) -> Found:
        """Read the file and compare it with what is there: in a thread, it takes seconds where there are thousands."""
        settings = load_settings(file)
        if problems := window_problems(self._settings, settings.accounts):
            raise SettingsInvalid(problems, where=str(file))
        # Files are those of the accounts as they were read: one that is kept may have had its password from elsewhere.
        accounts = kept(self._catalog.all, {account.id: account for account in settings.accounts})
        return accounts, changed_sections(self._settings, settings), _named(file, settings.accounts)


def _look(files: Iterable[Path]) -> Seen:
    return {path: signature_of(path) for path in files}


def _by_folder(files: Collection[Path], *, alone: Path | None) -> dict[str, list[Path]]:
    folders = {path.parent for path in files}
    found: dict[str, list[Path]] = {}
    for path in files:
        folder = str(path if path == alone else path.parent)
        if len(folders) > FOLDERS_LIMIT and path != alone:
            folder = f"folders {crc32(folder.encode('utf-8', 'surrogateescape')) % FOLDERS_LIMIT}"
        found.setdefault(folder, []).append(path)
    return found


def _first_folders(files: Iterable[Path]) -> list[str]:
    """Where somebody may begin to look."""
    return sorted({str(path.parent) for path in files})[:FOLDERS_SHOWN]


def _named(file: Path | None, accounts: Iterable[AccountSettings]) -> set[Path]:
    own = set() if file is None else {file}
    return own.union(*(files_of(account) for account in accounts))


def signature_of(path: Path) -> Signature | None:
    """What of a file changes with it; None of one that is not there."""
    try:
        return signature_in(path.stat())
    except OSError:
        return None
