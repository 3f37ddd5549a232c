"""What mailbus says to NATS, in every test and every process of one, held against the rights that its user has.

docs/operations.md documents them, `mailbus_permissions` prints them, and nobody but a server that has them would refuse
anything else. Whoever asks in a test's own name, or with an operator's rights, is let.
"""

import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pytest

from service.bus import Bus, mailbus_permissions
from service.bus.client import BusClient
from service.contract import Subjects

SERVICE: Final = Path(__file__).parents[2] / "service"
TESTS: Final = Path(__file__).parents[1]
# The command line has an operator's rights, and what it does by them alone has rooms of its own.
OPERATORS: Final = ("cli", "demo", "erase")

beyond: list[str] = []


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject is one of a pattern's."""
    wanted, given = pattern.split("."), subject.split(".")
    for number, token in enumerate(wanted):
        if token == ">":
            return len(given) > number
        if number >= len(given) or token not in ("*", given[number]):
            return False
    return len(wanted) == len(given)


@lru_cache(maxsize=10_000)
def allowed(prefix: str, verb: str, subject: str) -> bool:
    """Whether mailbus's user may publish or hear so."""
    if subject.startswith("_INBOX"):  # its own, or an answer
        return True
    rights = mailbus_permissions(Subjects(prefix))
    return any(matches(one, subject) for one in (rights.subscribe if verb == "SUB" else rights.publish))


def said(command: bytes) -> Iterator[tuple[str, str]]:
    """What a command asks for, or each of those in it: its verb and its subject."""
    while command:
        line, _, rest = command.partition(b"\r\n")
        verb, *words = line.decode().split(" ")
        if verb in ("PUB", "HPUB"):
            yield "PUB", words[0]
            rest = rest[int(words[-1]) + 2 :]
        elif verb == "SUB":
            yield verb, words[0]
        command = rest


def asks_as_mailbus() -> bool:
    """Whether who asks is mailbus, and neither a test nor an operator: the nearest that is not the bus itself."""
    frame = sys._getframe(2)
    while frame := frame.f_back:  # type: ignore[assignment]
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(TESTS):
            return False
        if file.is_relative_to(SERVICE) and (room := file.relative_to(SERVICE).parts[0]) != "bus":
            return room not in OPERATORS
    return False


def hold_to_rights() -> None:
    """From now on whatever mailbus asks for and may not is kept in `beyond`, and said on standard error."""
    made, send = Bus.__init__, BusClient._send_command

    def make(self: Bus, nc: BusClient, *given: Any) -> None:
        made(self, nc, *given)
        nc.prefix = self.subjects.prefix  # type: ignore[attr-defined]

    async def held(self: BusClient, cmd: bytes, priority: bool = False) -> None:
        for verb, subject in said(bytes(cmd)):
            if not allowed(self.prefix, verb, subject) and asks_as_mailbus():  # type: ignore[attr-defined]
                beyond.append(f"{verb} {subject}")
                print(f'"beyond_its_rights": "{verb} {subject}"', file=sys.stderr, flush=True)
        await send(self, cmd, priority)

    Bus.__init__ = make  # type: ignore[method-assign]
    BusClient._send_command = held


@pytest.fixture(scope="session", autouse=True)
def _held_to_rights() -> None:
    hold_to_rights()


@pytest.fixture(autouse=True)
def _within_rights() -> Iterator[None]:
    beyond.clear()
    yield
    assert beyond == []
