"""Hostile requests, a few hundred of them: fuzz.py does it for as long as one likes."""

import pytest

from tests.outbound.fuzz import run


@pytest.mark.fault("G07", "E11")
def test_hostile_requests_are_refused_or_read_as_they_were_meant() -> None:
    count = run(250, seed=11)
    assert count.refused > 50
    assert count.made > 50
