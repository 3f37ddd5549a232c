"""The page of the benchmarks: a work's table is replaced by itself, and every work has its place."""

from pathlib import Path

import pytest

from tests.bench.__main__ import DOCUMENT, VERSIONS, WORKS
from tests.bench.ground import BenchError
from tests.bench.table import BEGIN, END, write


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "bench.md"
    blocks = [f"{BEGIN.format(name)}\n\nold {name}\n\n{END.format(name)}" for name in ("pop3", "pop3-small")]
    file.write_text("# Head\n\n" + "\n\n".join(blocks) + "\n\nTail\n", encoding="utf-8")
    return file


def test_the_table_of_one_work_is_replaced_and_all_else_stays(page: Path) -> None:
    before = page.read_text(encoding="utf-8")
    write(page, {"pop3": "new"})
    assert page.read_text(encoding="utf-8") == before.replace("old pop3\n", "new\n")


def test_a_page_without_a_works_marks_is_refused_as_it_is(page: Path) -> None:
    before = page.read_text(encoding="utf-8")
    with pytest.raises(BenchError, match="send"):
        write(page, {"pop3": "new", "send": "new"})
    assert page.read_text(encoding="utf-8") == before


def test_every_work_has_its_place_on_the_page() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in (*WORKS, VERSIONS):
        assert text.count(BEGIN.format(name)) == text.count(END.format(name)) == 1, name
