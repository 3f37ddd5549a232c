"""When POP3 is wanted in the place of IMAP."""

from service.ingest import Absence


def test_whoever_is_away_for_long_is_stood_in_for_until_they_are_back() -> None:
    absence = Absence(300.0)
    assert not absence.is_long(0.0, away=False, moved=0)
    assert not absence.is_long(1.0, away=True, moved=0)
    assert not absence.is_long(300.0, away=True, moved=0)
    assert absence.is_long(301.0, away=True, moved=0)
    assert absence.is_long(900.0, away=True, moved=0)
    assert not absence.is_long(901.0, away=False, moved=0)
    assert not absence.is_long(902.0, away=True, moved=0)


def test_a_short_absence_is_none_however_often_it_comes() -> None:
    absence = Absence(300.0)
    times = [(at, at % 200 < 100) for at in range(0, 2_000, 50)]
    assert not any(absence.is_long(float(at), away=away, moved=0) for at, away in times)


def test_whoever_reads_is_not_away_however_long_it_takes() -> None:
    absence = Absence(300.0)
    assert not any(absence.is_long(float(at), away=True, moved=at) for at in range(0, 4_000, 100))
    assert not absence.is_long(4_000.0, away=True, moved=3_900)
    assert absence.is_long(4_200.0, away=True, moved=3_900)
    # It stands in, and IMAP reads again: they would take turns.
    assert not absence.is_long(4_201.0, away=True, moved=3_901)
