"""An account's mailboxes, and few connections for them → which are followed, and whose turn it is. Pure.

Used by lines.py (turns) and rounds.py (what there is, what moved). RFC 9051 6.3.9 (LIST), RFC 6154 (SPECIAL-USE).
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, TypeAlias

from service.contract import Choice, ChoiceKind, mailbox_name
from service.errors import PeerError
from service.imap import Figures, ListedMailbox, by_role, selectable

# A mailbox that is read for the first time gives its connection to others after so long.
SLICE_S: Final = 30.0
# 2001: an older time is no time, but a number that every mailbox may have.
UIDVALIDITY_TIME: Final = 1_000_000_000


# -- which mailboxes are followed -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resolved:
    """The mailboxes to follow, most important first; `roles`: chosen ones that no mailbox has."""

    names: list[str]
    roles: list[Choice]


def matches(pattern: str, name: str, delimiter: str | None) -> bool:
    """Whether a name is of a pattern (RFC 9051 6.3.9): `*` is anything, `%` anything but the delimiter.

    All places in the pattern at once, a bit each: time is the name's length, whoever chose either of them.
    """
    if name == "INBOX":
        pattern = pattern.upper()  # RFC 9051 5.1: in any case
    places = _closed(1, pattern)
    for char in name:
        moved = 0
        for at, one in enumerate(pattern):
            if places >> at & 1:
                if one == "*" or (one == "%" and char != delimiter):
                    moved |= 1 << at
                elif one == char:
                    moved |= 1 << at + 1
        places = _closed(moved, pattern)
        if not places:
            return False
    return bool(places >> len(pattern) & 1)


def _closed(places: int, pattern: str) -> int:
    """A wildcard may be nothing."""
    for at, one in enumerate(pattern):
        if one in "*%" and places >> at & 1:
            places |= 1 << at + 1
    return places


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is followed. `named`: mailboxes by role, where the server says none; `target`: where the account itself
    moves mail that it announced, followed only where it is named, or its role is."""

    choices: Sequence[Choice]
    exclude: Sequence[Choice]
    named: Mapping[str, str]
    target: str = ""

    @property
    def needs_list(self) -> bool:
        """Whether only the server knows what is meant."""
        return bool(self.exclude) or any(one.kind is not ChoiceKind.NAME for one in self.choices)

    def names(self) -> list[str]:
        """The mailboxes, where no server is needed to know them."""
        return [choice.text for choice in self.choices]

    def resolve(self, listed: Sequence[ListedMailbox]) -> Resolved:
        """The choices as names, in their order; what a pattern finds: Gmail's All Mail, INBOX, then by name.

        A mailbox that is named and not there is among them, so that it is said.
        Raises PeerError where nothing is listed: INBOX always is (RFC 9051 5.1).
        """
        if not listed:
            raise PeerError("LIST names no mailbox at all, not even INBOX")
        roles = by_role(listed, self.named)
        there = {mailbox_name(one.name): one for one in listed if selectable(one)}
        ordered = sorted(there.values(), key=lambda one: (one.name != roles.get("all"), one.name != "INBOX", one.name))

        def found(choice: Choice) -> list[str]:
            match choice.kind:
                case ChoiceKind.NAME:
                    return [choice.text]
                case ChoiceKind.ROLE:
                    return [mailbox_name(roles[choice.text])] if choice.text in roles else []
                case ChoiceKind.PATTERN:
                    names = ((mailbox_name(one.name), one.delimiter) for one in ordered)
                    return [name for name, delimiter in names if matches(choice.text, name, delimiter)]

        without = {name for choice in self.exclude for name in found(choice)}
        if not any(self.target in found(choice) for choice in self.choices if choice.kind is not ChoiceKind.PATTERN):
            without.add(self.target)
        names = dict.fromkeys(name for choice in self.choices for name in found(choice))
        missing = [one for one in self.choices if one.kind is ChoiceKind.ROLE and one.text not in roles]
        return Resolved([name for name in names if name not in without], missing)


@dataclass(frozen=True, slots=True)
class Renamed:
    """What a mailbox that appeared was called before; `proved`: the server itself says so."""

    name: str
    proved: bool


def renames(appeared: Mapping[str, Figures], vanished: Mapping[str, Figures]) -> dict[str, Renamed]:
    """Which of the mailboxes that appeared are those that vanished at the same time.

    By a UIDVALIDITY that no other of them has and that looks like a time, as servers make them: whoever takes it for
    the same compares messages.
    """
    found: dict[str, Renamed] = {}
    for name, figures in appeared.items():
        value = figures.uidvalidity or 0
        alone = sum(other.uidvalidity == value for other in appeared.values()) == 1
        same = [old for old, before in vanished.items() if before.uidvalidity == value]
        if alone and value > UIDVALIDITY_TIME and len(same) == 1:
            found[name] = Renamed(same[0], proved=False)
    return found


# -- whose turn it is -----------------------------------------------------------------------------------------


class Turn(Enum):
    """Where a mailbox stands: not begun, at rest, waiting for a connection, at work on one, idling, asked to leave."""

    OUT = auto()
    REST = auto()
    CALL = auto()
    WORK = auto()
    STAND = auto()
    LEAVE = auto()


class Cue(Enum):
    """What happens to it."""

    CALLED = auto()
    SEATED = auto()
    STANDS = auto()
    WORKS = auto()
    ASKED = auto()
    RESTS = auto()
    ENDS = auto()


TURNS: Final[dict[tuple[Turn, Cue], Turn]] = {
    (Turn.OUT, Cue.CALLED): Turn.CALL,
    (Turn.OUT, Cue.ENDS): Turn.OUT,
    (Turn.REST, Cue.CALLED): Turn.CALL,
    (Turn.REST, Cue.ENDS): Turn.OUT,
    (Turn.CALL, Cue.CALLED): Turn.CALL,
    (Turn.CALL, Cue.SEATED): Turn.WORK,
    (Turn.CALL, Cue.ENDS): Turn.OUT,
    (Turn.WORK, Cue.CALLED): Turn.WORK,
    (Turn.WORK, Cue.STANDS): Turn.STAND,
    (Turn.WORK, Cue.ASKED): Turn.LEAVE,  # its time is over
    (Turn.WORK, Cue.ENDS): Turn.OUT,
    (Turn.STAND, Cue.CALLED): Turn.STAND,
    (Turn.STAND, Cue.WORKS): Turn.WORK,
    (Turn.STAND, Cue.ASKED): Turn.LEAVE,
    (Turn.STAND, Cue.ENDS): Turn.OUT,
    (Turn.LEAVE, Cue.CALLED): Turn.LEAVE,
    (Turn.LEAVE, Cue.STANDS): Turn.LEAVE,
    (Turn.LEAVE, Cue.WORKS): Turn.LEAVE,
    (Turn.LEAVE, Cue.RESTS): Turn.REST,
    (Turn.LEAVE, Cue.ENDS): Turn.OUT,
}
SEATED: Final = frozenset({Turn.WORK, Turn.STAND, Turn.LEAVE})


# Whether it is the first of its account, when mail last came to it, and its place in the list, backwards.
Weight: TypeAlias = tuple[bool, float, int]


@dataclass(eq=False, slots=True)
class Seat:
    """One mailbox's turn. `order`: its place in the account's list; `active_at`: when mail last came to it;
    `since`: since when it is at work."""

    order: int
    turn: Turn = Turn.OUT
    active_at: float = -math.inf
    since: float = 0.0

    @property
    def weight(self) -> Weight:
        """How much it matters to hear of its mail at once: the first of the list always, then where mail came last."""
        return (self.order == 0, self.active_at, -self.order)


@dataclass(slots=True)
class Decided:
    """`seated`: they have a connection now; `asked`: to leave theirs."""

    seated: list[Seat] = field(default_factory=list)
    asked: list[Seat] = field(default_factory=list)


class Seating:
    """So many connections at once. Who calls is served in the order of calls; who idles makes room, the least first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._callers: dict[Seat, None] = {}
        self._seated: dict[Seat, None] = {}
        self._resting: dict[Seat, None] = {}

    @property
    def callers(self) -> bool:
        """Whether somebody waits."""
        return bool(self._callers)

    def cue(self, seat: Seat, cue: Cue, now: float = 0.0) -> None:
        """What happens to a seat."""
        seat.turn = TURNS[seat.turn, cue]
        for group, turns in (
            (self._callers, {Turn.CALL}),
            (self._seated, SEATED),
            (self._resting, {Turn.REST}),
        ):
            if seat.turn in turns:
                group.setdefault(seat)
            else:
                group.pop(seat, None)
        if cue in {Cue.SEATED, Cue.WORKS}:
            seat.since = now

    def decide(self, now: float) -> Decided:
        """Seat who waits, ask others to make room; where nobody waits, those that matter most have the connections."""
        decided = Decided()
        if not self._callers:
            self._recall()
        while self._callers and len(self._seated) < self.limit:
            seat = next(iter(self._callers))
            self.cue(seat, Cue.SEATED, now)
            decided.seated.append(seat)
        leaving = sum(seat.turn is Turn.LEAVE for seat in self._seated)
        for seat in heapq.nsmallest(len(self._callers) - leaving, self.standing(), key=lambda seat: seat.weight):
            self.cue(seat, Cue.ASKED)
            decided.asked.append(seat)
        return decided

    def _recall(self) -> None:
        """Call those at rest that matter more than some that idle, or for whom there is room."""
        room = self.limit - len(self._seated)
        idle = sorted(self.standing(), key=lambda seat: seat.weight)
        for seat in heapq.nlargest(self.limit, self._resting, key=lambda seat: seat.weight):
            if room > 0:
                room -= 1
            elif idle and idle[0].weight < seat.weight:
                idle.pop(0)
            else:
                break
            self.cue(seat, Cue.CALLED)

    def standing(self) -> list[Seat]:
        """Those that idle on a connection."""
        return [seat for seat in self._seated if seat.turn is Turn.STAND]

    def overdue(self, seat: Seat, now: float) -> bool:
        """Whether a mailbox at work shall let others go on: asked to leave from now on."""
        if seat.turn is Turn.WORK and self._callers and now - seat.since > SLICE_S:
            self.cue(seat, Cue.ASKED)
        return seat.turn is Turn.LEAVE
