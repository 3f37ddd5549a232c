"""IDLE's table."""

import pytest

from service.errors import PeerError
from service.imap.state import Idle, Seen, next_idle


def test_a_whole_idle() -> None:
    state = Idle.OFF
    for seen in (Seen.START, Seen.PLUS, Seen.DONE, Seen.TAGGED):
        state = next_idle(state, seen)
    assert state is Idle.OFF


def test_done_before_the_continuation_is_our_mistake() -> None:
    with pytest.raises(RuntimeError, match="DONE while IDLE is ASKED"):
        next_idle(Idle.ASKED, Seen.DONE)


def test_a_second_continuation_is_the_servers() -> None:
    with pytest.raises(PeerError, match="PLUS while IDLE is ON"):
        next_idle(Idle.ON, Seen.PLUS)
