"""The name that a mail gives to a file → one under which it can be stored anywhere. Pure, linear.

RFC 2183 2.3: a name may be a path, and must not be used as it is.
"""

import re
import unicodedata
from typing import Final

# The letters of nearly every name: such a name is as it should be.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9 _()+,=@~-]|\.(?=[A-Za-z0-9_(]))*(?<! )\Z")
# Control characters, marks that turn the direction (`exe.gpj` shown as `jpg.exe`), halves of pairs, and what Windows
# or a shell reads as something else.
_BAD: Final = re.compile(
    r'[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff"*:<>?|]+'
)
_RESERVED: Final = re.compile(r"(?:con|prn|aux|nul|con(?:in|out)\$|(?:com|lpt)[0-9¹²³]) *(?:\.|\Z)", re.IGNORECASE)
# Names have at most 255 bytes in nearly all file systems; what follows may add some.
_BYTES: Final = 200
_ENDING_CHARS: Final = 16


def safe_name(name: str) -> str:
    """Without folders, marks and reserved names; "file" where nothing is left."""
    if len(name) < _BYTES and _PLAIN.match(name) is not None and _RESERVED.match(name) is None:
        return name
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    last = unicodedata.normalize("NFC", _BAD.sub("_", last[:1024])).strip(" .")
    if _RESERVED.match(last) is not None:
        last = f"_{last}"
    if len(last.encode()) > _BYTES:
        stem, dot, ending = last.rpartition(".")
        if not dot or len(ending) > _ENDING_CHARS:
            stem, dot, ending = last, "", ""
        room = _BYTES - len(ending.encode()) - len(dot)
        last = stem.encode()[:room].decode("utf-8", "ignore").rstrip(" .") + dot + ending
    return last or "file"
