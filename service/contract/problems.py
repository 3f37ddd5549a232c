"""What is wrong with a body that came over the bus, with its field; and JSON bytes → a struct, or just that. Pure.

Used for requests to send and for commands. JMAP's clients write null for what is absent (RFC 8621 7).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, Literal, TypeVar, get_args, get_origin

import msgspec

from service.errors import Permanent

T = TypeVar("T")
Wrong = Callable[[str, str], None]

# A filter nests deepest of what may come; what is deeper is refused by its own limit.
_NULLS_DEPTH: Final = 16
# Whoever makes more mistakes than this sees the rest the next time.
PROBLEMS_LIMIT: Final = 50
# Whose names and values may be a requester's: so many characters are enough to find it.
FIELD_LIMIT_CHARS: Final = 200
MESSAGE_LIMIT_CHARS: Final = 500
_NAMES: Final = re.compile(r"\.(\w+)")


class Problem(msgspec.Struct, frozen=True, rename="camel"):
    """What is wrong with one field, and what would do."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class RequestProblems(Permanent):
    """A request that cannot be understood: `problems` lists all that is wrong."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__(str(problems[0]), where="request", remedy="correct the named field")


def bounded(problems: Sequence[Problem]) -> list[Problem]:
    """As many of them, and as much of each, as are said in one message."""
    return [
        Problem(one.field[:FIELD_LIMIT_CHARS], one.message[:MESSAGE_LIMIT_CHARS]) for one in problems[:PROBLEMS_LIMIT]
    ]


@dataclass(frozen=True, slots=True)
class ReadBody(Generic[T]):
    """What could be read of a body, None where nothing could, and what is wrong with the rest."""

    body: T | None
    problems: list[Problem]


def decode_body(payload: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """JSON → the decoder's struct, whose null members may be absent. Raises RequestProblems with all that is wrong."""
    read = read_body(payload, decoder)
    if read.body is None or read.problems:
        raise RequestProblems(read.problems)
    return read.body


def read_body(payload: bytes, decoder: msgspec.json.Decoder[T]) -> ReadBody[T]:
    """The struct, without the members that are wrong, and what is wrong with them; None where nothing can be read."""
    try:
        try:
            body = decoder.decode(payload)
        except msgspec.ValidationError:
            value = _without_nulls(msgspec.json.decode(payload))
        else:
            return ReadBody(body, [])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return ReadBody(None, [Problem("", f"not a JSON object: {exc}")])
    problems: list[Problem] = []
    # msgspec names one error at a time: the member is noted and left out until the rest is right.
    while len(problems) < PROBLEMS_LIMIT:
        try:
            return ReadBody(msgspec.convert(value, decoder.type), problems)
        except msgspec.ValidationError as exc:
            message, _, path = str(exc).partition(" - at ")
            field = _field(message, path)
            if field in {outermost(one.field) for one in problems}:
                break  # it is missed because it was wrong, and left out
            problems.append(Problem(field, _with_remedy(message, path, decoder.type)))
            if not isinstance(value, dict) or value.pop(outermost(field), None) is None:
                break
    return ReadBody(None, problems)


def outermost(field: str) -> str:
    """The member of the body that a field stands in."""
    return re.split(r"[.\[]", field, maxsplit=1)[0]


def _without_nulls(value: object) -> object:
    """Members that are null left out, as deep as anything of ours is; not of `parameters`, where null says something.

    RFC 8621 section 7: a parameter of the envelope that takes no value is null.
    """

    def clean(value: object, depth: int) -> object:
        if depth == 0:
            return value
        if isinstance(value, dict):
            return {
                name: one if name == "parameters" else clean(one, depth - 1)
                for name, one in value.items()
                if one is not None
            }
        if isinstance(value, list):
            return [clean(one, depth - 1) for one in value]
        return value

    return clean(value, _NULLS_DEPTH)


def _with_remedy(message: str, path: str, body: object) -> str:
    """An unknown field or value beside those that are known there."""
    if "unknown field" not in message and "enum value" not in message:
        return message
    for name in _NAMES.findall(path.removeprefix("`$")):
        inner = {field.encode_name: field.type for field in msgspec.structs.fields(_struct(body))}
        body = inner.get(name)
    names = [field.encode_name for field in msgspec.structs.fields(_struct(body))]
    known = ", ".join(names if "unknown field" in message else _values(body))
    return f"{message}; known are {known}" if known else message


def _struct(hint: object) -> type[msgspec.Struct]:
    """The struct within a type such as `list[Filter] | None`; one without fields where there is none."""
    for one in _within(hint):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one
    return msgspec.Struct


def _values(hint: object) -> list[str]:
    """What a Literal or an enumeration within a type takes."""
    for one in _within(hint):
        if get_origin(one) is Literal:
            return [str(value) for value in get_args(one)]
        if isinstance(one, type) and issubclass(one, Enum):
            return [str(member.value) for member in one]
    return []


def _within(hint: object) -> Iterator[object]:
    """A type, and those that it is made of."""
    waiting = [hint]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += get_args(one)


def _field(message: str, path: str) -> str:
    named = re.search(r"(?:unknown|missing required) field `([^`]*)`", message)
    inside = path.strip("`").removeprefix("$").removeprefix(".")
    if named:
        return f"{inside}.{named[1]}" if inside else named[1]
    return inside
