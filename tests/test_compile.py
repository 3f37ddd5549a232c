"""What is compiled may be: it reads the same either way, and nothing of it is lost in silence."""

import ast

from tools.compile import ROOT, sources

TREES = {name: ast.parse((ROOT / name).read_text(encoding="utf-8")) for name in sources()}


def test_no_compiled_file_has_a_struct() -> None:
    # mypyc passes no options on to a metaclass: frozen, array_like and rename would be gone without a word.
    structs = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any("Struct" in ast.unparse(base) for base in node.bases)
    ]
    assert structs == []


def test_no_compiled_file_waits() -> None:
    waits = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await)
    ]
    assert waits == []


def test_every_room_that_each_mail_passes_is_compiled() -> None:
    read = {"bus", "contract", "imap", "ingest", "meaning", "mime", "parsing"}
    assert {name.split("/")[1] for name in sources()} == read | {"outbound", "smtp"}
