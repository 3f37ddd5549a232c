"""The table of limits in the manual is the code's."""

import re
from dataclasses import asdict
from pathlib import Path

from service.mime import Cut, MimeLimits

MANUAL = Path(__file__).parents[2] / "docs" / "mime.md"


def test_the_manual_has_every_limit_with_its_value() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", MANUAL.read_text(), re.MULTILINE)
    assert {name: int(value) for name, value in rows} == asdict(MimeLimits())


def test_the_manual_names_every_cut() -> None:
    table = MANUAL.read_text().partition("## Limits")[2]
    assert [cut for cut in Cut if f"`{cut.value}`" not in table] == []
