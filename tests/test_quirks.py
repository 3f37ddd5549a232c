"""What docs/quirks.md says of the code: each function it names stands in the file that it names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = [line for line in (ROOT / "docs/quirks.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
FILE = re.compile(r"`([a-z0-9_]+(?:/[a-z0-9_]+)+\.py)`((?:,? `_?[a-z][a-z0-9_]*`)*)")
NAMED = sorted(
    {
        (file, name)
        for row in ROWS
        for file, names in FILE.findall(row)
        if not file.startswith("tests/")
        for name in ["", *re.findall(r"`(\w+)`", names)]
    }
)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_a_quirk_names_is_there(file: str, name: str) -> None:
    source = (ROOT / "service" / file).read_text(encoding="utf-8")
    assert not name or re.search(rf"\b(?:def|class) {name}\b|^{name}\b", source, re.MULTILINE)
