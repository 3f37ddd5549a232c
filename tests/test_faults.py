"""docs/faults.md claims no more than the tests show."""

from functools import cache

from tools.faults import TABLE, rows, shown_by, written

TEXT = TABLE.read_text(encoding="utf-8")
ROWS = rows(TEXT)


@cache
def shown() -> dict[str, list[str]]:
    """Which show a row; not while they are collected: it reads all of them."""
    return shown_by()


def test_every_line_of_the_tables_is_a_row() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| row |", "| ---"))]
    assert len(lines) == len(ROWS) == 100


def test_every_marker_names_a_row_that_exists() -> None:
    unknown = {row: shown()[row] for row in shown().keys() - ROWS.keys()}
    assert not unknown, unknown


def test_no_row_claims_more_tests_than_there_are() -> None:
    wrong = [
        f"{row.id}: {row.shown}, there are {len(shown().get(row.id, []))}"
        for row in ROWS.values()
        if row.shown > len(shown().get(row.id, []))
    ]
    assert not wrong, f"run: make faults ARGS=--write ({wrong})"


def test_writing_changes_nothing_but_the_counts() -> None:
    again = rows(written(TEXT, shown()))
    assert [(row.id, row.every_release, row.what) for row in again.values()] == [
        (row.id, row.every_release, row.what) for row in ROWS.values()
    ]
    assert all(again[id].shown == len(shown().get(id, [])) for id in again)
