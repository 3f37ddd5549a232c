"""Processes forked from one that has imported mailbus: a second of a core less than an interpreter's start.

What is forked is alone in its process, ends by itself, and is ended by a signal or at a step, as what was started. That
mailbus also starts as its operators start it is shown by test_life.py and tests/cli/test_words.py.
"""

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

# All that a process needs, so that none of them imports it again.
import service.app
import service.check
import service.cli.accounts
import service.cli.check
import service.cli.send
import service.cli.tail
import service.erase  # noqa: F401
from service.cli import main
from service.observe import steps
from tests.servers.rights import hold_to_rights

ROOT: Final = Path(__file__).parents[2]
CONTEXT: Final = multiprocessing.get_context("forkserver")
# One list for all that fork: the last one that is set counts.
CONTEXT.set_forkserver_preload([__name__, "tests.outbound.child", "tests.ingest.child"])


class Forked:
    """One process that runs `what(*words)`; it is asked as a `subprocess.Popen` is, from one thread.

    `what` is found by its module and name. `env` is its environment; `files` are its standard input, output and errors,
    of which None is what the tests have.
    """

    def __init__(
        self,
        what: Callable[..., None],
        *words: str,
        env: Mapping[str, str],
        files: tuple[Path | None, Path | None, Path | None] = (None, None, None),
    ) -> None:
        self._process = CONTEXT.Process(target=_begin, args=(what, words, dict(env), files), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: Final = self._process.pid

    def poll(self) -> int | None:
        """The exit code, None while it runs; of a process that a signal ended, its number below zero."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Until it ends. Raises TimeoutExpired."""
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to one that runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)


def words(*given: str) -> None:
    """What `python -m service …` does."""
    sys.argv = ["mailbus", *given]
    main()


def _begin(
    what: Callable[..., None], given: tuple[str, ...], env: dict[str, str], files: tuple[Path | None, ...]
) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    for number, file in enumerate(files):
        if file is not None:
            opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY, 0o644)
            os.dup2(opened, number)
            os.close(opened)
    if files[0] is not None:
        sys.stdin = os.fdopen(0, closefd=False)
    # What it read of the environment when it was imported.
    importlib.reload(steps)
    hold_to_rights()
    what(*given)
