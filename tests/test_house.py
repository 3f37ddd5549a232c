"""The house holds itself: floors, neighbours, pure files, sizes, RFCs. A failure says file, line and way out."""

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICE = ROOT / "service"

# The number of the floor; what stands on one floor are neighbours, and no neighbour imports another.
FLOORS = {
    "__init__": 0,
    "errors": 0,
    "clock": 0,
    "budget": 0,
    "lookup": 0,
    "aside": 0,
    "tasks": 0,
    "turns": 0,
    "observe": 0,
    "contract": 1,
    "reach": 1,
    "login": 1,
    "imap": 2,
    "pop3": 2,
    "smtp": 2,
    "bus": 2,
    "mime": 2,
    "meaning": 2,
    "oauth": 2,
    "parsing": 3,
    "after": 4,
    "boxes": 4,
    "ingest": 4,
    "outbound": 4,
    "commands": 4,
    "settings": 5,
    "admin": 5,
    "fleet": 5,
    "secure": 6,
    "tokens": 6,
    "discovery": 6,
    "build": 6,
    "check": 6,
    "snapshot": 6,
    "reload": 6,
    "catalog": 6,
    "erase": 6,
    "app": 6,
    "demo": 7,
    "cli": 8,
    "__main__": 8,
}
# These build on each other: the ground floor, and the composition root, which is several files.
TOGETHER = {0, 6, 8}
PURE_NAMES = {"wire", "state", "plan", "retry", "grammar", "assign", "guard", "encode", "sasl"}
PURE_NAMES |= {"spans", "stir", "known", "marks", "notes", "seen", "stock", "drop", "links", "sets", "flagsets"}
PURE_NAMES |= {"numbers", "prints", "criteria", "roles", "uidplus", "identity", "labels", "erased", "look", "absence"}
PURE_ROOMS = {"mime", "meaning", "contract"}
IMPURE = {"asyncio", "time", "random", "socket", "ssl", "threading", "uvloop", "nats", "aiosmtplib", "aioimaplib"}
LINES_LIMIT = 400
# Facts of our workplace, which no reader of the repository can look up.
OURS_ALONE = re.compile(
    r"/work/|\bissues show\b|\bthe (brief|lead)\b|\b(TODO|FIXME|XXX)\b"
    r"|\b(DESIGN|STYLE|FAULTS)(\.md| section)|\bDESIGN \d"
)


@dataclass(frozen=True)
class Import:
    file: Path
    line: int
    module: str
    names: tuple[str, ...]
    for_types_only: bool

    @property
    def place(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"


def sources(folder: Path = SERVICE) -> list[Path]:
    return sorted(file for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports_found(file: Path) -> Iterator[Import]:
    tree = tree_of(file)
    types_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, (), node in types_only)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.relative_to(ROOT)}:{node.lineno}: a relative import"
            yield Import(file, node.lineno, node.module or "", tuple(a.name for a in node.names), node in types_only)


@cache
def imports(file: Path) -> tuple[Import, ...]:
    return tuple(imports_found(file))


def room_of(file: Path) -> str:
    return file.relative_to(SERVICE).parts[0].removesuffix(".py")


def rooms_imported(found: Import) -> Iterator[str]:
    parts = found.module.split(".")
    if parts[0] != "service":
        return
    if len(parts) > 1:
        yield parts[1]
    else:
        yield from (name for name in found.names if name in FLOORS)


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(file) for file in sources()}
    assert rooms <= FLOORS.keys(), f"give it a floor in tests/test_house.py: {rooms - FLOORS.keys()}"


def test_files_import_from_lower_floors_and_their_own_room_only() -> None:
    wrong = []
    for file in sources():
        room = room_of(file)
        for found in imports(file):
            for other in rooms_imported(found):
                above = FLOORS[other] > FLOORS[room]
                beside = FLOORS[other] == FLOORS[room] and other != room and FLOORS[room] not in TOGETHER
                if above or beside:
                    reason = f"above floor {FLOORS[room]}" if above else "a neighbour"
                    wrong.append(
                        f"{found.place}: {room} imports {other} (floor {FLOORS[other]}), {reason}:"
                        f" what both need goes to floor {FLOORS[room] - 1} or lower"
                    )
    assert not wrong, "\n".join(wrong)


def test_other_rooms_are_taken_from_the_room_not_from_its_files() -> None:
    wrong = []
    for file in sources():
        room = room_of(file)
        for found in imports(file):
            parts = found.module.split(".")
            if parts[0] == "service" and len(parts) > 2 and parts[1] != room:
                wrong.append(f"{found.place}: from service.{parts[1]} import …, not from {found.module}")
    assert not wrong, "\n".join(wrong)


def is_pure(file: Path) -> bool:
    return file.stem in PURE_NAMES or room_of(file) in PURE_ROOMS


def test_there_are_pure_files() -> None:
    assert sum(is_pure(file) for file in sources()) > 10


def test_pure_files_do_no_input_or_output_read_no_clock_and_roll_no_dice() -> None:
    wrong = []
    for file in filter(is_pure, sources()):
        wrong += [
            f"{found.place}: a pure file imports {found.module}: hand the value in"
            for found in imports(file)
            if found.module.partition(".")[0] in IMPURE
        ]
        for node in ast.walk(tree_of(file)):
            if isinstance(node, (ast.AsyncFunctionDef, ast.Await)):
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}: a pure file waits: decide here, do elsewhere")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"datetime.now", "datetime.utcnow", "open"}:
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}: a pure file calls {ast.unparse(node.func)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("aioimaplib", {"imap/protocol.py", "imap/session.py"}),
        ("nats", {"bus"}),
        ("nkeys", {"bus"}),
        ("aiosmtplib", {"smtp"}),
        ("dns", {"discovery/names.py"}),
        ("py3langid", {"mime/language.py"}),
        ("cryptography", {"oauth/key.py", "catalog/seal.py", "outbound/dkim.py"}),
        ("pydantic", {"settings", "settings.py"}),
    ],
)
def test_a_library_is_known_where_it_is_translated(library: str, allowed: set[str]) -> None:
    wrong = []
    for file in sources():
        place = file.relative_to(SERVICE)
        if place.parts[0] in allowed or str(place) in allowed or place.parts[0] in {"demo", "cli", "cli.py"}:
            continue
        wrong += [found.place for found in imports(file) if found.module.partition(".")[0] == library]
    assert not wrong, f"{library} belongs to {sorted(allowed)}: {wrong}"


def test_files_fit_one_noun() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}: {count} lines: which two is it?"
        for file in [*sources(), *sources(ROOT / "tests"), *sources(ROOT / "tools")]
        if (count := len(file.read_text(encoding="utf-8").splitlines())) >= LINES_LIMIT
    ]
    assert not wrong, "\n".join(wrong)


def test_every_file_says_in_its_first_line_where_it_stands() -> None:
    wrong = [str(file.relative_to(ROOT)) for file in sources() if not ast.get_docstring(tree_of(file))]
    assert not wrong, wrong


def test_tasks_have_parents() -> None:
    wrong = []
    for file in sources():
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                alone = {"asyncio.create_task", "asyncio.ensure_future", "asyncio.gather", "loop.create_task"}
                # asyncio's own group loses cancellations: service/tasks.py says when.
                if name in alone or name == "asyncio.TaskGroup":
                    wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}: {name}: use service.tasks.TaskGroup")
    assert not wrong, "\n".join(wrong)


def cited(text: str) -> set[int]:
    # "RFC 1870, 6152 and 6531" cites three.
    lists = re.findall(r"\bRFC (\d{3,5}(?:(?:, | and |-)\d{4,5}\b(?!\.))*)", text)
    return {int(number) for listed in lists for number in re.findall(r"\d+", listed)}


def test_every_rfc_that_the_code_cites_is_listed() -> None:
    text = (ROOT / "docs" / "rfcs.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| (\d{3,5}) \| [^|]+ \| (yes|partly|no) \|", text, re.MULTILINE))
    wrong = []
    for file in sources():
        missing = sorted(cited(file.read_text(encoding="utf-8")) - {int(number) for number in listed})
        wrong += [f"{file.relative_to(ROOT)}: RFC {number} is not in docs/rfcs.md" for number in missing]
    assert not wrong, "\n".join(wrong)


def test_every_document_that_the_code_names_is_there() -> None:
    wrong = []
    for file in [*sources(), *sources(ROOT / "tools"), ROOT / "Makefile"]:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            named = re.findall(r"\bdocs/[\w/.-]+\w", line)
            wrong += [f"{file.relative_to(ROOT)}:{number}: {name}" for name in named if not (ROOT / name).exists()]
    assert not wrong, "\n".join(wrong)


def test_decisions_are_numbered_without_a_gap_and_say_their_number() -> None:
    files = sorted((ROOT / "docs/decisions").glob("*.md"))
    heads = [(file.name[:4], file.read_text(encoding="utf-8")[:7]) for file in files]
    assert heads == [(f"{number:04}", f"# {number:04} ") for number in range(1, len(files) + 1)]


def test_no_word_of_the_workplace() -> None:
    wrong = []
    files = [
        *sources(),
        *sources(ROOT / "tests"),
        *sources(ROOT / "tools"),
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*.md"),
        *(ROOT / "deploy").rglob("*"),
        ROOT / "Makefile",
        ROOT / "Dockerfile",
        ROOT / ".ci" / "run",
        ROOT / "pyproject.toml",
    ]
    for file in files:
        if not file.is_file() or file == Path(__file__) or "peers" in file.parts:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if OURS_ALONE.search(line):
                wrong.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-run.lock"])
def test_the_locks_have_hashes_and_no_host(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    pins = re.findall(r"^([a-z0-9_.-]+)(\[[^\]]*\])?==", text, re.MULTILINE)
    assert len(pins) > 30
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in block, block[:60]


def test_the_locks_hold_what_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    run, whole = ((ROOT / name).read_text(encoding="utf-8") for name in ("requirements-run.lock", "requirements.lock"))

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=~ ;]", line)[0].lower().replace("_", "-") for line in requirements}

    needed = names(project["project"]["dependencies"])
    extras = project["project"]["optional-dependencies"]
    extra = names([*extras["demo"], *extras["discover"], *extras["language"], *project["dependency-groups"]["dev"]])
    for wanted, lock in ((needed, run), (needed | extra, whole)):
        pinned = {name.lower() for name in re.findall(r"^([A-Za-z0-9_.-]+)", lock, re.MULTILINE)}
        assert wanted <= pinned, f"run: make lock ({wanted - pinned})"
