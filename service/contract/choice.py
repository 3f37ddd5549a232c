"""Which mailboxes of an account are followed, as its operator wrote it. Plain data.

Written by settings, carried out by service/boxes.
"""

from dataclasses import dataclass
from enum import StrEnum


class ChoiceKind(StrEnum):
    """How mailboxes are named."""

    NAME = "name"
    PATTERN = "pattern"
    ROLE = "role"


@dataclass(frozen=True, slots=True)
class Choice:
    """`text`: a name as it is; a pattern of RFC 9051 6.3.9, `*` for anything, `%` for anything but the hierarchy
    delimiter; or a role (RFC 6154) without its backslash."""

    kind: ChoiceKind
    text: str

    def __str__(self) -> str:
        return f"\\{self.text.capitalize()}" if self.kind is ChoiceKind.ROLE else self.text
