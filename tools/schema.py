"""The contract's and the settings' classes → docs/schema/*.json and docs/settings.md.

`make schema` writes; tests/contract/test_schema.py and tests/settings/test_docs.py compare.
"""

import json
from pathlib import Path
from typing import Any, Final

from service.contract.schema import asyncapi, event_schema
from service.settings import settings_reference, settings_schema

FOLDER: Final = Path(__file__).parent.parent / "docs" / "schema"


def documents() -> dict[str, dict[str, Any]]:
    """Every generated document by its file name."""
    return {"events.json": event_schema(), "asyncapi.json": asyncapi(), "settings.json": settings_schema()}


def text_of(document: dict[str, Any]) -> str:
    """A document as it stands in its file."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = {FOLDER / name: text_of(document) for name, document in documents().items()}
    texts[FOLDER.parent / "settings.md"] = settings_reference()
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
        print(f"{file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}")


if __name__ == "__main__":
    main()
