"""Files that settings name, and what was in them when the settings were read. Used by model.py and its sections."""

import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, ValidationInfo
from pydantic.json_schema import WithJsonSchema
from pydantic_core import PydanticCustomError

from service.settings.values import folder_of, shown_file, some_text, unshown, wrong

# All authorities of the world take 300 KB.
FILE_LIMIT_BYTES: Final = 8 * 1024 * 1024
# What of a file changes with it: its inode, when it was written, and its size.
Signature = tuple[int, int, int]
_SCHEMA: Final = WithJsonSchema({"type": "string", "format": "mailbus-path"})


def _file(value: Any, info: ValidationInfo) -> str:
    path = folder_of(info) / some_text(value)
    try:
        with open(path, "rb"):
            return str(path)
    except OSError as exc:
        raise _unread(value, exc) from None


FilePath = Annotated[str, BeforeValidator(unshown(_file)), _SCHEMA]


@dataclass(frozen=True, slots=True)
class NamedFile:
    """An account's file of certificates, or a key. The same path with another content is another value.

    Nothing reads it again: a file system that fell silent since would hold up whoever did.
    """

    path: str
    content: bytes = field(default=b"", repr=False)
    # As the file was when it was read.
    signature: Signature | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.path


def _named(value: Any, info: ValidationInfo) -> NamedFile:
    path = folder_of(info) / some_text(value)
    try:
        signature = signature_in(os.stat(path))
        return NamedFile(str(path), _content(str(path), signature), signature)
    except OSError as exc:
        raise _unread(value, exc) from None


def signature_in(found: os.stat_result) -> Signature:
    """What tells a file from what it becomes."""
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _unread(value: str, exc: OSError) -> PydanticCustomError:
    return wrong(f"{shown_file(value)} cannot be read: {exc.strerror or 'no such path'}")


@lru_cache(1024)
def _content(path: str, _signature: Signature) -> bytes:
    """Thousands of accounts name the same authorities: read and kept once for each change. Raises OSError."""
    with open(path, "rb") as opened:
        content = opened.read(FILE_LIMIT_BYTES + 1)
    if len(content) > FILE_LIMIT_BYTES:
        raise wrong(f"is larger than {FILE_LIMIT_BYTES} bytes")
    return content


Named = Annotated[NamedFile, PlainValidator(unshown(_named)), PlainSerializer(str, return_type=str), _SCHEMA]
