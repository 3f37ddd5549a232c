"""Figures → medians, ratios, Markdown. Programs take turns: what slows the machine for a while meets all of them."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.ground import BenchError

OURS: Final = "mailbus"
BEGIN: Final = "<!-- {}: written by `make bench ARGS=--write` -->"
END: Final = "<!-- end of {} -->"

Programs = Mapping[str, Callable[[], Awaitable[float]]]


async def alternate(work: str, programs: Programs, runs: int) -> dict[str, list[float]]:
    """Every program once a round, each round begun by another; the figures by program."""
    found: dict[str, list[float]] = {name: [] for name in programs}
    names = list(programs)
    for number in range(runs):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            figure = await programs[name]()
            found[name].append(figure)
            tell(f"{work} {number + 1}/{runs} {name}: {figure:,.0f}/s")
    return found


def tell(line: str) -> None:
    """Progress, beside the table on standard output."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Rates:
    """One work: mails a second of each program, in each of its turns."""

    work: str
    figures: dict[str, list[float]]

    def lines(self) -> list[str]:
        """A table of Markdown under its title."""
        ours = median(self.figures[OURS])
        lines = [
            f"**{self.work}**",
            "",
            "| program | mails/s, median | each turn | mailbus is |",
            "| --- | ---: | --- | ---: |",
        ]
        for name, rates in self.figures.items():
            turns = ", ".join(f"{rate:,.0f}" for rate in rates)
            ratio = "" if name == OURS else f"{ours / median(rates):.1f} ×"
            lines.append(f"| {name} | {median(rates):,.0f} | {turns} | {ratio} |")
        return lines


@dataclass(frozen=True, slots=True)
class Columns:
    """One work of mailbus alone: a row of text for each case."""

    work: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def lines(self) -> list[str]:
        """A table of Markdown under its title."""
        rule = "| --- |" + " ---: |" * (len(self.head) - 1)
        return [f"**{self.work}**", "", _row(self.head), rule, *map(_row, self.rows)]


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def text(block: Rates | Columns | list[str]) -> str:
    """One block: a table, or facts."""
    return "\n".join(block if isinstance(block, list) else block.lines())


def write(file: Path, blocks: Mapping[str, str]) -> None:
    """Put each block between the marks that bear its name; others stay. Raises BenchError where marks are missing."""
    document = file.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, found, rest = document.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise BenchError(f"{file.name} has lost its marks: {begin} … {end}")
        document = f"{before}{begin}\n\n{block}\n\n{end}{after}"
    file.write_text(document, encoding="utf-8")
