"""Which mailboxes are followed, and whose turn it is: decided without a server."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.boxes.plan import SEATED, SLICE_S, Chosen, Cue, Renamed, Seat, Seating, Turn, matches, renames
from service.contract import Choice, ChoiceKind
from service.errors import PeerError
from service.imap import Figures, ListedMailbox


def box(name: str, *attributes: str, delimiter: str | None = "/") -> ListedMailbox:
    return ListedMailbox(name, delimiter, frozenset(attributes))


def choice(text: str) -> Choice:
    if text.startswith("\\"):
        return Choice(ChoiceKind.ROLE, text[1:])
    return Choice(ChoiceKind.PATTERN if set(text) & set("*%") else ChoiceKind.NAME, text)


def chosen(*texts: str, exclude: tuple[str, ...] = (), target: str = "", **named: str) -> Chosen:
    return Chosen([choice(text) for text in texts], [choice(text) for text in exclude], named, target)


THERE = [
    box("Lists", r"\noselect"),
    box("Lists/a"),
    box("Lists/b/c"),
    box("INBOX"),
    box("Old", r"\nonexistent"),
    box("Archiv", r"\archive"),
    box("Trash", r"\trash"),
]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (chosen("*"), ["INBOX", "Archiv", "Lists/a", "Lists/b/c", "Trash"]),
        (chosen("%"), ["INBOX", "Archiv", "Trash"]),
        (chosen("Lists/%"), ["Lists/a"]),
        (chosen("Lists/*", "INBOX"), ["Lists/a", "Lists/b/c", "INBOX"]),
        (chosen("inb%"), ["INBOX"]),
        (chosen("\\archive", "INBOX"), ["Archiv", "INBOX"]),
        (chosen("*", exclude=("Lists/*", "\\trash")), ["INBOX", "Archiv"]),
        (chosen("Trash", exclude=("%",)), []),
        (chosen("Not there"), ["Not there"]),
        (chosen("*", target="Archiv"), ["INBOX", "Lists/a", "Lists/b/c", "Trash"]),
        (chosen("Archiv", "%", target="Archiv"), ["Archiv", "INBOX", "Trash"]),
        (chosen("\\archive", "%", target="Archiv"), ["Archiv", "INBOX", "Trash"]),
        (chosen("\\junk", junk="Lists/a"), ["Lists/a"]),
    ],
)
def test_choices_are_names_in_their_order_each_once(given: Chosen, names: list[str]) -> None:
    assert given.resolve(THERE).names == names


def test_gmails_all_mail_comes_before_what_else_a_pattern_finds() -> None:
    there = [box("Aaa"), box("INBOX"), box("[Gmail]/All Mail", r"\all")]
    assert chosen("*").resolve(there).names == ["[Gmail]/All Mail", "INBOX", "Aaa"]


def test_a_role_that_no_mailbox_has_is_said() -> None:
    found = chosen("\\junk", "INBOX").resolve(THERE)
    assert (found.names, found.roles) == (["INBOX"], [Choice(ChoiceKind.ROLE, "junk")])


def test_a_list_without_any_mailbox_is_not_taken_for_their_end() -> None:
    with pytest.raises(PeerError):
        chosen("*").resolve([])


def test_only_names_need_no_list() -> None:
    assert not chosen("INBOX", "a").needs_list
    assert chosen("INBOX", "\\junk").needs_list
    assert chosen("INBOX", exclude=("a",)).needs_list


short = st.text(st.sampled_from("ab/*%"), max_size=8)


@given(short, st.text(st.sampled_from("ab/"), max_size=10), st.sampled_from(["/", ".", None]))
def test_a_pattern_matches_as_rfc_9051_says(pattern: str, name: str, delimiter: str | None) -> None:
    inside = f"[^{re.escape(delimiter)}]*" if delimiter else ".*"
    expression = "".join({"*": ".*", "%": inside}.get(char, re.escape(char)) for char in pattern)
    assert matches(pattern, name, delimiter) == bool(re.fullmatch(expression, name))


def test_a_pattern_takes_no_longer_because_somebody_chose_it_badly() -> None:
    assert not matches("*a" * 100 + "b", "a" * 900, "/")


# -- whose turn it is -----------------------------------------------------------------------------------------


class Turns(RuleBasedStateMachine):
    """Mailboxes that come, work, idle, rest and go in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.seating = Seating(2)
        self.seats = [Seat(order) for order in range(6)]
        self.now = 0.0
        self.calls: list[Seat] = []

    def happen(self, seat: Seat, cue: Cue) -> None:
        before = seat.turn
        self.seating.cue(seat, cue, self.now)
        if seat.turn is Turn.CALL and before is not Turn.CALL:
            self.calls.append(seat)
        decided = self.seating.decide(self.now)
        for one in decided.seated:
            if one in self.calls:
                # In the order of their calls; who is called because there is room waits for nobody.
                assert self.calls[0] is one
                self.calls.remove(one)
        if seat.turn is Turn.OUT and seat in self.calls:
            self.calls.remove(seat)

    def some(self, turns: set[Turn], at: int) -> Seat | None:
        there = [seat for seat in self.seats if seat.turn in turns]
        return there[at % len(there)] if there else None

    @rule(at=st.integers(0, 5))
    def called(self, at: int) -> None:
        self.happen(self.seats[at], Cue.CALLED)

    @rule(at=st.integers(0, 5), mail=st.booleans(), seconds=st.floats(0, 2 * SLICE_S))
    def works_and_stands(self, at: int, mail: bool, seconds: float) -> None:
        if (seat := self.some({Turn.WORK}, at)) is not None:
            self.now += seconds
            if mail:
                seat.active_at = self.now
            since = seat.since
            if self.seating.overdue(seat, self.now):
                # Whosever work it was that took so long.
                assert self.now - since > SLICE_S
            self.happen(seat, Cue.STANDS)

    @rule(at=st.integers(0, 5))
    def wakes(self, at: int) -> None:
        if (seat := self.some({Turn.STAND}, at)) is not None:
            self.happen(seat, Cue.WORKS)

    @rule(at=st.integers(0, 5))
    def leaves(self, at: int) -> None:
        if (seat := self.some({Turn.LEAVE}, at)) is not None:
            self.happen(seat, Cue.RESTS)

    @rule(at=st.integers(0, 5))
    def ends(self, at: int) -> None:
        self.happen(self.seats[at], Cue.ENDS)

    @precondition(lambda self: self.calls)
    @rule()
    def whoever_calls_has_a_turn_once_the_others_go_on(self) -> None:
        caller = self.calls[0]
        for _ in range(20):
            for seat in self.seats:
                if seat.turn is Turn.WORK:
                    self.happen(seat, Cue.STANDS)
                if seat.turn is Turn.LEAVE:
                    self.happen(seat, Cue.RESTS)
            if caller not in self.calls:
                return
        raise AssertionError("it waits for ever")

    @invariant()
    def never_more_connections_than_allowed(self) -> None:
        assert sum(seat.turn in SEATED for seat in self.seats) <= self.seating.limit

    @invariant()
    def nobody_rests_while_there_is_room(self) -> None:
        if any(seat.turn is Turn.REST for seat in self.seats):
            assert sum(seat.turn in SEATED for seat in self.seats) == self.seating.limit

    @invariant()
    def nobody_waits_while_somebody_idles(self) -> None:
        waiting = sum(seat.turn is Turn.CALL for seat in self.seats)
        leaving = sum(seat.turn is Turn.LEAVE for seat in self.seats)
        assert waiting <= leaving or not self.seating.standing()


TestTurns = Turns.TestCase


def seated(limit: int, count: int) -> tuple[Seating, list[Seat]]:
    """So many mailboxes, all looked at once."""
    seating, seats = Seating(limit), [Seat(order) for order in range(count)]
    for seat in seats:
        seating.cue(seat, Cue.CALLED)
    settle(seating, seats)
    return seating, seats


def settle(seating: Seating, seats: list[Seat]) -> None:
    for _ in range(5000):
        seating.decide(0.0)
        moving = [seat for seat in seats if seat.turn in {Turn.WORK, Turn.LEAVE}]
        if not moving:
            return
        for seat in moving:
            seating.cue(seat, Cue.STANDS if seat.turn is Turn.WORK else Cue.RESTS)
    raise AssertionError("no rest")


def standing(seats: list[Seat]) -> list[int]:
    return [seat.order for seat in seats if seat.turn is Turn.STAND]


def test_in_quiet_the_first_of_the_list_have_the_connections() -> None:
    _, seats = seated(3, 1000)
    assert standing(seats) == [0, 1, 2]


def test_attention_moves_to_where_mail_arrives_and_stays_with_the_first() -> None:
    seating, seats = seated(3, 10)
    for order in (7, 5):
        seating.cue(seats[order], Cue.CALLED)
        seats[order].active_at = float(order)
        settle(seating, seats)
    assert standing(seats) == [0, 5, 7]


def test_what_was_looked_at_in_vain_does_not_keep_the_connection() -> None:
    seating, seats = seated(2, 10)
    seating.cue(seats[8], Cue.CALLED)
    settle(seating, seats)
    assert standing(seats) == [0, 1]


def test_one_connection_serves_a_thousand_mailboxes() -> None:
    seating, seats = seated(1, 1000)
    assert standing(seats) == [0]
    for order in (999, 3):
        seating.cue(seats[order], Cue.CALLED)
        settle(seating, seats)
        assert standing(seats) == [0]


def test_a_long_first_reading_lets_others_go_on() -> None:
    seating, seats = Seating(1), [Seat(0), Seat(1)]
    seating.cue(seats[0], Cue.CALLED)
    seating.decide(0.0)
    assert not seating.overdue(seats[0], 2 * SLICE_S)
    seating.cue(seats[1], Cue.CALLED)
    assert not seating.overdue(seats[0], SLICE_S / 2)
    assert seating.overdue(seats[0], 2 * SLICE_S)
    seating.cue(seats[0], Cue.RESTS)
    assert seating.decide(2 * SLICE_S).seated == [seats[1]]


# -- renamed --------------------------------------------------------------------------------------------------


def test_a_mailbox_is_known_again_by_a_uidvalidity_that_is_its_own() -> None:
    time = 1_700_000_000
    vanished = {"b": Figures(time + 1), "c": Figures(time + 2), "d": Figures(1)}
    appeared = {"b2": Figures(time + 1), "c2": Figures(time + 2), "c3": Figures(time + 2), "d2": Figures(1)}
    assert renames(appeared, vanished) == {"b2": Renamed("b", proved=False)}
