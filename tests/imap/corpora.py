"""What real servers say → whether it is read, and the same however it comes: `python -m tests.imap.corpora FOLDER`.

FOLDER has transcripts of servers' answers, collected elsewhere and not part of this repository: `*.txt` below a folder
`imap`, byte for byte; `lines.jsonl` with one answer a line under `raw`; `*.test` with answers after `S: `, as patterns.
Each is fed whole, byte by byte, and with something after it. Prints what is refused and what is not known by name, for
a person to judge; a reading that differs, or an error that is none of ours, ends with exit code 1. What is found
becomes a small case in test_quirks.py.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import PeerError
from service.imap.grammar import Other, Response, parse_response
from service.imap.wire import ResponseSplitter, WireLimits

LIMITS = WireLimits(literal_bytes=64 * 1024 * 1024)
TRAILER = b"* 42 EXISTS\r\n"
_RESPONSE = re.compile(rb"(\* |\+|[A-Za-z0-9]+ (OK|NO|BAD)\b)", re.IGNORECASE)
# Of a pattern: what stands for other than itself.
_PATTERN = re.compile(r"(?<!\\)[.\[\]*?|^$]|(?<!\\)\((?!\\)|\\[dwsS]")


@dataclass
class Reading:
    """What came of one piece of wire: responses, or why it ended."""

    responses: list[Response] = field(default_factory=list)
    refused: str = ""


def read(chunks: list[bytes]) -> Reading:
    """As a connection would."""
    splitter, found = ResponseSplitter(LIMITS), Reading()
    try:
        for chunk in chunks:
            splitter.feed(chunk)
            while (pieces := splitter.next_response()) is not None:
                if len(pieces) > 1 or pieces[0]:
                    found.responses.append(parse_response(pieces))
    except PeerError as exc:
        found.refused = exc.what
    return found


def differences(wire: bytes) -> list[str]:
    """What is not the same in the three ways of feeding."""
    whole = read([wire])
    found = []
    if read([wire[i : i + 1] for i in range(len(wire))]) != whole:
        found.append("byte by byte")
    trailed = read([wire + TRAILER])
    if not whole.refused and wire.endswith(b"\n") and trailed.responses[: len(whole.responses)] != whole.responses:
        found.append("with something after it")
    return found


def wires(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every transcript below a folder, with its name."""
    for file in sorted(folder.rglob("*.txt")):
        if "imap" in file.parts:
            # Kept with a sign for the client's tag and with LF; the sizes of literals count CRLF.
            wire = re.sub(rb"(?<!\r)\n", b"\r\n", file.read_bytes().replace(b"A########", b"A00000001"))
            yield str(file.relative_to(folder)), wire
    for file in sorted(folder.rglob("lines.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            raw = one.get("raw", "").encode("latin-1", "replace")
            if _RESPONSE.match(raw):
                yield f"{one['source']} {one['where']}", raw if raw.endswith(b"\n") else raw + b"\r\n"
    for file in sorted(folder.rglob("*.test")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            text = line.removeprefix("S: ")
            if text != line and not _PATTERN.search(text):
                wire = re.sub(r"\\(.)", r"\1", text).encode()
                if _RESPONSE.match(wire) and not wire.endswith(b"}"):
                    yield f"{file.name}:{number}", wire + b"\r\n"


def main(folder: Path) -> int:
    """Read all; 1 where something must be mended."""
    count, wrong = 0, 0
    unknown: Counter[str] = Counter()
    for name, wire in wires(folder):
        count += 1
        try:
            reading, differs = read([wire]), differences(wire)
        except Exception as exc:  # noqa: BLE001 any error but ours is what is looked for
            print(f"BUG      {name}: {exc!r}: {wire[:300]!r}")
            wrong += 1
            continue
        unknown.update(one.name for one in reading.responses if isinstance(one, Other))
        if reading.refused:
            print(f"refused  {name}: {reading.refused}: {wire[:300]!r}")
        for way in differs:
            print(f"DIFFERS  {name}: {way}: {wire[:300]!r}")
            wrong += 1
    print(f"{count} transcripts; not known by name: {dict(unknown.most_common())}")
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
