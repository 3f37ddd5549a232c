"""The table of agreement, by property and corpus; `--differences` lists each, with the convention that explains it."""

import sys
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.corpora.conventions import agrees_by_convention
from tests.corpora.readers import Reader, mailbus, readers
from tests.corpora.seen import PROPERTIES, Seen, agrees
from tests.corpora.truth import Case, cases, mails

# mailbus again, where a corpus's own conventions are taken into account.
BY_CONVENTION = "by convention"
# Which properties a peer has anything to say of.
SAYS = {
    "mailbus": set(PROPERTIES),
    "stdlib": {"subject", "from_", "to", "date", "message_id", "text", "attachments"},
    "mail-parser": {"subject", "from_", "to", "date", "message_id", "text"},
    "fast-mail-parser": {"subject", "date", "message_id", "text", "attachments"},
    "flufl.bounce": {"kind", "recipients"},
}


@dataclass(slots=True)
class Count:
    right: int = 0
    all: int = 0

    def __str__(self) -> str:
        return f"{100 * self.right / self.all:5.1f} % of {self.all}" if self.all else "-"


@dataclass(slots=True)
class Table:
    """Counts by property, corpus and reader."""

    counts: dict[tuple[str, str, str], Count] = field(default_factory=lambda: defaultdict(Count))
    differences: list[str] = field(default_factory=list)

    def add(self, corpus: str, case: Case, reader: str, seen: Seen | None) -> None:
        for name in PROPERTIES:
            if getattr(case.expected, name) is None or name not in SAYS[reader]:
                continue
            right = seen is not None and agrees(name, case.expected, seen)
            self.count(name, corpus, reader, right)
            if reader != "mailbus" or seen is None:
                continue
            convention = "" if right else agrees_by_convention(corpus, name, case, seen)
            self.count(name, corpus, BY_CONVENTION, right or bool(convention))
            if not right:
                want, got = getattr(case.expected, name), getattr(seen, name)
                said = f"{corpus}/{case.file}: {name}: expected {want!r:.300}, seen {got!r:.300}"
                self.differences.append(f"{said} [{convention or 'no convention'}]")

    def count(self, name: str, corpus: str, reader: str, right: bool) -> None:
        for place in (corpus, "all"):
            count = self.counts[name, place, reader]
            count.all += 1
            count.right += right

    def show(self, names: list[str]) -> None:
        print(f"{'property':12} {'corpus':34}" + "".join(f"{name:>18}" for name in names))
        for property_, place in sorted(
            {key[:2] for key in self.counts}, key=lambda key: (PROPERTIES.index(key[0]), key[1])
        ):
            cells = (str(self.counts.get((property_, place, name), "-")) for name in names)
            print(f"{property_.strip('_'):12} {place:34}" + "".join(f"{cell:>18}" for cell in cells))


def answer(reader: Reader, raw: bytes) -> Seen | None:
    """None where the reader gives up; mailbus never does. Of an mbox with several mails, what all of them report."""
    first, *more = (_one(reader, mail) for mail in mails(raw))
    for seen in more:
        if first is None or seen is None:
            return first
        for name in ("recipients", "reason", "hard"):
            setattr(first, name, (getattr(first, name) or []) + (getattr(seen, name) or []))
    return first


def _one(reader: Reader, raw: bytes) -> Seen | None:
    if reader is mailbus:
        return mailbus(raw)
    try:
        return reader(raw)
    except Exception:  # noqa: BLE001 a peer's exception is an answer like any other
        return None


def main(words: list[str]) -> int:
    """The exit code."""
    options = {word for word in words if word.startswith("--")}
    folder, *names = [word for word in words if not word.startswith("--")] or [""]
    if not folder or not Path(folder).is_dir():
        print("usage: python -m tests.corpora DIR [CORPUS …] [--differences]", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    found, table, read = readers(), Table(), 0
    for corpus in sorted(
        path for path in Path(folder).iterdir() if path.is_dir() and (not names or path.name in names)
    ):
        for case in cases(corpus):
            for name, reader in found.items():
                table.add(corpus.name, case, name, answer(reader, case.raw))
        for file in sorted(
            path for path in corpus.rglob("*") if path.is_file() and path.name not in ("truth.jsonl", "PROVENANCE.md")
        ):
            mailbus(file.read_bytes())  # whatever it is: no exception
            read += 1
    first, *peers = found
    table.show([first, BY_CONVENTION, *peers])
    print(f"\n{read} files read without an exception")
    if "--differences" in options:
        print("\n".join(["", *table.differences]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
