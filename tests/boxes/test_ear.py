"""Whether a connection hears of all mailboxes: the table, and how long a round waits."""

import pytest

from service.boxes.ear import EAR, HEARING_ROUND_S, Ear, Noise, pause_s


@pytest.mark.parametrize(
    ("noises", "reached"),
    [
        ([Noise.AGREED], Ear.ON),
        ([Noise.REFUSED], Ear.RESTS),
        ([Noise.REFUSED, Noise.LOST, Noise.RESTED, Noise.AGREED], Ear.ON),
        ([Noise.AGREED, Noise.LOST, Noise.AGREED], Ear.ON),
        ([Noise.AGREED, Noise.OVERFLOW], Ear.RESTS),
        ([Noise.OVERFLOW, Noise.AGREED], Ear.RESTS),
        ([Noise.OVERFLOW, Noise.REFUSED], Ear.RESTS),
        ([Noise.AGREED, Noise.OVERFLOW, Noise.LOST, Noise.RESTED, Noise.AGREED], Ear.ON),
    ],
)
def test_it_hears_until_it_is_lost_or_told_too_much(noises: list[Noise], reached: Ear) -> None:
    ear = Ear.DEAF
    for noise in noises:
        ear = EAR[ear, noise]
    assert ear is reached


@pytest.mark.parametrize(
    ("ear", "cheap", "beyond", "seconds"),
    [
        (Ear.DEAF, False, False, 60.0),
        (Ear.RESTS, False, False, 60.0),
        (Ear.ON, False, True, 60.0),
        (Ear.ON, True, False, 60.0),
        (Ear.ON, False, False, HEARING_ROUND_S),
    ],
)
def test_rounds_that_cost_much_are_rare_where_all_are_heard_of(
    ear: Ear, cheap: bool, beyond: bool, seconds: float
) -> None:
    assert pause_s(ear, poll_s=60.0, cheap=cheap, beyond=beyond) == seconds


def test_a_poll_that_is_rarer_stays_so() -> None:
    assert pause_s(Ear.ON, poll_s=3600.0, cheap=False, beyond=False) == 3600.0
