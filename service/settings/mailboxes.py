"""What an operator writes in `mailboxes` and `exclude` → choices: names, patterns and roles."""

import re
import unicodedata
from typing import Annotated, Any, Final

from pydantic import PlainSerializer
from pydantic.functional_validators import PlainValidator
from pydantic.json_schema import WithJsonSchema

from service.contract import ROLES, Choice, ChoiceKind, mailbox_name, mailbox_token
from service.settings.values import mailbox_text, some_text, wrong

# Each is tried on every mailbox that the server lists.
CHOICES_LIMIT: Final = 10_000
WILDCARDS: Final = re.compile(r"[*%]")


def _choice(value: Any) -> Choice:
    if isinstance(value, dict) and value.keys() == {"name"}:
        return Choice(ChoiceKind.NAME, mailbox_name(mailbox_text(value["name"])))
    text = mailbox_text(value)
    if text.startswith("\\"):
        role = text[1:].lower()
        if role not in ROLES:
            known = ", ".join(f"\\{role.capitalize()}" for role in ROLES)
            raise wrong(f'no such role: there is {known}; write {{name: "{text}"}} for a mailbox that is called so')
        return Choice(ChoiceKind.ROLE, role)
    if WILDCARDS.search(text):
        return Choice(ChoiceKind.PATTERN, unicodedata.normalize("NFC", text))
    return Choice(ChoiceKind.NAME, mailbox_name(text))


def _choices(value: Any) -> tuple[Choice, ...]:
    if not isinstance(value, list):
        raise wrong("write a list, such as [INBOX]")
    if len(value) > CHOICES_LIMIT:
        raise wrong(f"must be at most {CHOICES_LIMIT} entries: write patterns")
    found = [_choice(one) for one in value]
    if len({(one.kind, mailbox_token(one.text)) for one in found}) < len(found):
        raise wrong("says the same mailbox, pattern or role twice")
    return tuple(found)


def _some_choices(value: Any) -> tuple[Choice, ...]:
    found = _choices(value)
    if not found:
        raise wrong("write a list of names, patterns or roles, such as [INBOX]")
    return found


def _shown(choices: tuple[Choice, ...]) -> list[Any]:
    """As it may be written again."""
    return [
        {"name": one.text}
        if one.kind is ChoiceKind.NAME and (WILDCARDS.search(one.text) or one.text.startswith("\\"))
        else str(one)
        for one in choices
    ]


def _schema(least: int) -> WithJsonSchema:
    name = {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    }
    return WithJsonSchema({"type": "array", "minItems": least, "items": {"anyOf": [{"type": "string"}, name]}})


Choices = Annotated[tuple[Choice, ...], PlainValidator(_choices), PlainSerializer(_shown, return_type=list), _schema(0)]
SomeChoices = Annotated[
    tuple[Choice, ...], PlainValidator(_some_choices), PlainSerializer(_shown, return_type=list), _schema(1)
]


def literal(value: Any) -> str:
    """A mailbox's name as it is."""
    return mailbox_name(some_text(value))
