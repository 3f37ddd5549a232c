"""docs/faults.md and the tests' markers → which row is shown by which tests. `make faults` prints it.

`make faults ARGS=--write` writes the counts into the table; tests/test_faults.py holds both to each other.
"""

import argparse
import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
TABLE: Final = ROOT / "docs" / "faults.md"
_ROW: Final = re.compile(
    r"^\| (?P<id>[A-G]\d\d)(?P<star> ★)? \| (?P<what>[^|]+) \| (?P<does>[^|]+) \| *(?P<shown>\d*) *\|$"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `shown` is what stands there."""

    id: str
    every_release: bool
    what: str
    shown: int


def rows(text: str) -> dict[str, Row]:
    """Every row of the table, in its order."""
    found: dict[str, Row] = {}
    for line in text.splitlines():
        if match := _ROW.match(line):
            assert match["id"] not in found, f"{match['id']} stands twice"
            found[match["id"]] = Row(match["id"], bool(match["star"]), match["what"].strip(), int(match["shown"] or 0))
    return found


def shown_by(folder: Path = ROOT / "tests") -> dict[str, list[str]]:
    """Which tests carry `@pytest.mark.fault(...)`, by row: `path::name`."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        everywhere = {
            row
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
            for row in _marked(node.value)
        }
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                marked = everywhere | {row for decorator in node.decorator_list for row in _marked(decorator)}
                for row in sorted(marked):
                    found[row].append(f"{file.relative_to(folder.parent)}::{node.name}")
            elif isinstance(node, ast.ClassDef):
                for decorator in node.decorator_list:
                    for row in _marked(decorator):
                        found[row].append(f"{file.relative_to(folder.parent)}::{node.name}")
    return dict(found)


def _marked(node: ast.expr) -> set[str]:
    """The rows of every `mark.fault(...)` within an expression: a decorator, a list, a parameter's marks."""
    return {
        argument.value
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("mark.fault")
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def written(text: str, found: dict[str, list[str]]) -> str:
    """The table with its last column as the tests are."""
    lines = []
    for line in text.splitlines():
        if match := _ROW.match(line):
            count = len(found.get(match["id"], []))
            star = match["star"] or ""
            line = f"| {match['id']}{star} | {match['what']} | {match['does']} | {count or ''} |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the rows beside their tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the counts into docs/faults.md")
    text, found = TABLE.read_text(encoding="utf-8"), shown_by()
    if parser.parse_args().write:
        TABLE.write_text(written(text, found), encoding="utf-8")
    table = rows(text)
    for row in table.values():
        names = found.get(row.id, [])
        print(f"{row.id}{'*' if row.every_release else ' '} {len(names) or '-':>3}  {row.what}")
        for name in names:
            print(f"           {name}")
    starred = [row for row in table.values() if row.every_release]
    shown = sum(row.id in found for row in table.values())
    stars = sum(row.id in found for row in starred)
    print(f"{shown} of {len(table)} rows have a test; of the {len(starred)} that every release must show, {stars}")
    if unknown := found.keys() - table.keys():
        raise SystemExit(f"no such row in docs/faults.md: {sorted(unknown)}")


if __name__ == "__main__":
    main()
