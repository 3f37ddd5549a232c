"""Where mailbus and independent parsers read a mail differently: `python -m tests.corpora.differ DIR [MAILS] [SEED]`.

Over every file of the corpora as it is, then over MAILS (2,000) of them broken by the fuzzer. The peers are Python's
`email` and, where it is installed, fast-mail-parser (Rust's mailparse). A peer that gives up is counted as such. What
differs is shown by property and by what mailbus itself says of such a mail: `whole` where it saw nothing wrong. Those
are the ones to look at, and listed.
"""

import random
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from service.mime import MimeLimits, parse
from tests.corpora.readers import Reader, mailbus, readers
from tests.corpora.seen import Seen, agrees
from tests.mime.fuzz import broken, corpus_seeds, weights

PROPERTIES = ("subject", "date", "message_id", "text", "attachments")
LISTED = 40


@dataclass(slots=True)
class Differences:
    """Counts by peer, property and outcome; of mails that mailbus takes for whole also what differs."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    listed: list[str] = field(default_factory=list)

    def compare(self, name: str, raw: bytes, peers: dict[str, Reader]) -> None:
        ours = mailbus(raw)
        whole = parse(raw, received_at=None, limits=MimeLimits(), inline_limit=10**7).whole
        for peer, reader in peers.items():
            try:
                theirs = reader(raw)
            except Exception:  # noqa: BLE001 a peer's exception is an answer like any other
                self.counts[peer, "", "gave up"] += 1
                continue
            theirs.also["attachments"] = ["files", "parts"]
            for property_ in PROPERTIES:
                told = _has(theirs, property_) or property_ == "attachments"
                same = agrees(property_, theirs, ours) if told else not _has(ours, property_)
                outcome = "same" if same else "differs, whole" if whole else "differs"
                self.counts[peer, property_, outcome] += 1
                if not same and whole and len(self.listed) < LISTED:
                    want, got = getattr(theirs, property_), getattr(ours, property_)
                    self.listed.append(f"{name}: {property_}: {peer} {want!r:.150}, mailbus {got!r:.150}")

    def show(self, title: str, peers: dict[str, Reader]) -> None:
        print(f"\n{title}\n{'property':12} {'peer':18} {'same':>8} {'differs':>8} {'of whole mails':>15}")
        for property_ in PROPERTIES:
            for peer in peers:
                same, other, whole = (
                    self.counts[peer, property_, outcome] for outcome in ("same", "differs", "differs, whole")
                )
                print(f"{property_:12} {peer:18} {same:8} {other:8} {whole:15}")
        print("gave up: " + ", ".join(f"{peer} {self.counts[peer, '', 'gave up']}" for peer in peers))
        print("\n".join(self.listed))


def _has(seen: Seen, name: str) -> bool:
    """Whether there is anything: one says that there is no date, the other an empty text."""
    return bool(getattr(seen, name))


def main(words: list[str]) -> int:
    """The exit code."""
    if not words or not Path(words[0]).is_dir():
        print("usage: python -m tests.corpora.differ DIR [MAILS] [SEED]", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    mails = int(words[1]) if len(words) > 1 else 2000
    rng = random.Random(int(words[2]) if len(words) > 2 else 1)
    peers = {name: reader for name, reader in readers().items() if name in ("stdlib", "fast-mail-parser")}
    seeds = list(corpus_seeds(Path(words[0])))
    weighed = weights(seeds)
    as_they_are, fuzzed = Differences(), Differences()
    for number, raw in enumerate(seeds):
        as_they_are.compare(f"file {number}", raw, peers)
    as_they_are.show(f"{len(seeds)} files as they are", peers)
    for number in range(mails):
        fuzzed.compare(f"input {number}", broken(rng, seeds, weighed), peers)
    fuzzed.show(f"{mails} of them broken", peers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
