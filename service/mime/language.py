"""A text → the language that it is in, as a tag (RFC 5646). The only file that knows py3langid, which is an extra.

Loaded when a text is first asked about: 0.7 s, and 120 MiB for as long as the process runs. A text takes 0.1 to 0.7 ms.
"""

import importlib
import importlib.util
from typing import Any, Final

# Later text seldom changes the answer, and its time grows with the text.
LOOK_AT_CHARS: Final = 4096
# What it says of "ok", a name or a link is 0.2 at the most, of a short sentence mostly 0.9.
_SURE: Final = 0.5
# Its word for what is no language: numbers, links, code (ISO 639-2).
_NO_LANGUAGE: Final = ("zxx", "und", "mul")
_LIBRARY: Final = "py3langid"

_loaded: list[Any] = []


def language_is_there() -> bool:
    """Whether the library is installed: `pip install 'mailbus[language]'`."""
    return importlib.util.find_spec(_LIBRARY) is not None


def language_of(text: str) -> str:
    """The tag of the language of a text; "" where it is not sure, or the library is not installed."""
    head = text[:LOOK_AT_CHARS].strip()
    if not head or not language_is_there():
        return ""
    if not _loaded:
        library = importlib.import_module(f"{_LIBRARY}.langid")
        _loaded.append(library.LanguageIdentifier.from_model_file(library.MODEL_FILE, norm_probs=True))
    tag, sure = _loaded[0].classify(head)
    return str(tag) if sure >= _SURE and tag not in _NO_LANGUAGE else ""
