"""Numbered stop points: where the crash test ends a process, and nothing otherwise.

A step stands before and after each durable effect. Armed by two environment variables:
MAILBUS_STEPS_LOG=FILE appends each step's name; MAILBUS_STOP_AT=N ends the process at the
Nth step, or NAME at the first of that name, at once and without clean-up, as kill -9 would.
"""

import os
from itertools import count
from typing import Final

STOP_EXIT_CODE: Final = 86

_stop_at: Final = os.environ.get("MAILBUS_STOP_AT", "0")
_log: Final = os.environ.get("MAILBUS_STEPS_LOG")
_numbers: Final = count(1)


def step(name: str) -> None:
    """Pass the stop point `name`. Does nothing unless a test armed it."""
    if _stop_at == "0" and not _log:
        return
    number = next(_numbers)
    if _log:
        with open(_log, "a", encoding="ascii") as file:
            file.write(f"{name}\n")
    if _stop_at in (str(number), name):
        os._exit(STOP_EXIT_CODE)
