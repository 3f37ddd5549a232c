"""A secret in a file: read anew, and replaced whole or not at all. Used by tokens.py, in a thread of its own."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

SECRET_LIMIT_BYTES: Final = 64 * 1024


def read_secret(path: Path) -> str:
    """What stands in the file, without the line end that ends it. Raises OSError, UnicodeDecodeError."""
    with open(path, "rb") as file:
        content = file.read(SECRET_LIMIT_BYTES)
    return content.decode().removesuffix("\n").removesuffix("\r")


def write_secret(path: Path, text: str) -> None:
    """Put `text` into the file, for its owner alone. Raises OSError, and then the file is as it was.

    A link is followed: what it points to is replaced. The rename and the folder are synced, so a power cut leaves
    the old content or the new one.
    """
    path = path.resolve()
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(number, "wb") as file:
            file.write(text.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
