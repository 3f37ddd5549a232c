"""A password, token or key as settings have it: written out, in the environment, or in a file. Used by model.py."""

import os
import re
from pathlib import Path
from typing import Any, Final, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from service.settings.files import Signature, signature_in
from service.settings.values import LINE_END, folder_of, show_size, shown, shown_file, unshown, wrong

# What is longer is no password but a wrong path.
SECRET_LIMIT_BYTES: Final = 64 * 1024
SECRET_FORMS: Final = "{env: NAME}, {file: PATH}, or the text itself"
# What is certainly meant as a name, and no secret that was written in its place.
NAME_SHOWN: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,39}")


class Secret:
    """A password or token. Only `reveal` shows it: repr, str, comparison errors and dumps do not. False when empty."""

    __slots__ = ("_text", "file", "signature")

    def __init__(self, text: str = "", file: Path | None = None, signature: Signature | None = None) -> None:
        self._text = text
        self.file = file  # where it was read, for whoever may have to put a new one there
        self.signature = signature  # as the file was then

    def reveal(self) -> str:
        """The secret itself; hand it on at once, to what speaks to the server."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(***)" if self._text else "Secret()"

    def __str__(self) -> str:
        return "***" if self._text else ""

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            unshown(_secret), serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        one = {"type": "object", "additionalProperties": False}
        return {
            "anyOf": [
                {"type": "string"},
                one | {"properties": {"env": {"type": "string"}}, "required": ["env"]},
                one | {"properties": {"file": {"type": "string"}}, "required": ["file"]},
            ],
            "writeOnly": True,
        }


def _secret(value: Any, info: ValidationInfo) -> Secret:
    """Resolve a secret at load, so that a missing one is found with all other errors."""
    if isinstance(value, Secret):
        return value
    if isinstance(value, dict) and value.keys() == {"env"} and isinstance(value["env"], str):
        name = shown("the environment variable", value["env"], NAME_SHOWN)
        found = os.environ.get(value["env"])
        if found is None:
            raise wrong(f"{name} is not set")
        return _checked(found, name)
    if isinstance(value, dict) and value.keys() == {"file"} and isinstance(value["file"], str):
        return _from_file(folder_of(info) / value["file"], shown_file(value["file"]))
    if not isinstance(value, str):
        raise wrong(f"write {SECRET_FORMS} (in quotes where it looks like a number)")
    return _checked(value, "it")


def _from_file(path: Path, shown: str) -> Secret:
    try:
        with open(path, "rb") as file:
            signature = signature_in(os.fstat(file.fileno()))
            content = file.read(SECRET_LIMIT_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "no such path"
        raise wrong(f"{shown} cannot be read: {reason}") from None
    if len(content) > SECRET_LIMIT_BYTES:
        raise wrong(f"{shown} is larger than a secret can be ({show_size(SECRET_LIMIT_BYTES)})")
    try:
        decoded = content.decode()
    except UnicodeDecodeError:
        raise wrong(f"{shown} is not UTF-8") from None
    # Editors end the last line; nothing else is taken away.
    for end in ("\r\n", "\n"):
        if decoded.endswith(end):
            decoded = decoded[: -len(end)]
            break
    return _checked(decoded, shown, path, signature)


def _checked(found: str, where: str, file: Path | None = None, signature: Signature | None = None) -> Secret:
    if not found:
        raise wrong(f"{where} is empty: write {SECRET_FORMS}")
    if LINE_END.search(found):
        raise wrong(f"{where} holds a line end or a NUL, which no server takes")
    if not found.isascii() and any("\ud800" <= char <= "\udfff" for char in found):
        raise wrong(f"{where} is not UTF-8")
    return Secret(found, file, signature)
