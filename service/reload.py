"""The settings file, and the files that accounts name, as they change → accounts of the running process.

Looked at by name and not by the kernel's events: that works over network file systems and for volumes that
Kubernetes swaps under a link, and one `stat` a file costs nothing. Used by app.py.
"""

import asyncio
from pathlib import Path
from typing import Final

from service.build import window_problems
from service.catalog import Catalog
from service.clock import Clock
from service.observe import log, metrics
from service.settings import Settings, SettingsInvalid, changed_sections, files_of, load_settings

LOOK_EVERY_S: Final = 2.0

Signature = tuple[int, int, int]


class Reload:
    """The catalog is given all accounts of the file whenever it, or a file that they name, has changed and is right."""

    def __init__(self, file: Path, settings: Settings, catalog: Catalog, clock: Clock) -> None:
        self._file = file
        self._settings = settings
        self._catalog = catalog
        self._clock = clock
        self._named = {file, *_named(settings)}

    async def run(self) -> None:
        """Look for changes, for ever."""
        seen = await asyncio.to_thread(self._look)
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            now = await asyncio.to_thread(self._look)
            changed = {path for path, found in now.items() if seen.get(path, found) != found}
            if changed & self._named:
                await self.read()
            self._catalog.read_again(changed)
            # Other files may be named by now; what changed meanwhile is seen the next time.
            named = await asyncio.to_thread(self._look) if changed else now
            seen = {path: now.get(path, found) for path, found in named.items()}

    async def read(self) -> None:
        """Read the settings again. What is wrong is said, and everything stays as it was."""
        try:
            settings = await asyncio.to_thread(load_settings, self._file)
            if problems := window_problems(self._settings, settings.accounts):
                raise SettingsInvalid(problems, where=str(self._file))
        except SettingsInvalid as exc:
            metrics.SETTINGS_REFUSED.set(1)
            log.error("settings_not_taken", file=str(self._file), problems=exc.problems)
            return
        metrics.SETTINGS_REFUSED.set(0)
        if sections := changed_sections(self._settings, settings):
            log.warning("settings_need_restart", sections=sections)
        self._named = {self._file, *_named(settings)}
        self._catalog.take_file({account.id: account for account in settings.accounts})

    def _look(self) -> dict[Path, Signature | None]:
        return {path: _signature(path) for path in {*self._named, *self._catalog.files()}}


def _named(settings: Settings) -> set[Path]:
    return {file for account in settings.accounts for file in files_of(account)}


def _signature(path: Path) -> Signature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)
