"""No expression that reads mail shares one run of characters among three repeats: that is n³ and worse.

`\\s*:?\\s*\\(?\\s*<?` is such a one: 900 spaces and no match took years, in a mail of one line. Two that follow each
other are n² for one place, which the lengths that the rooms read make bearable; a possessive repeat gives nothing back.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

# What re.compile itself reads an expression with; its nodes are pairs of an opcode and its arguments.
parser = importlib.import_module("re._parser")
codes = importlib.import_module("re._constants")

ROOMS = ("service.mime", "service.meaning", "service.parsing")
# A repeat of fewer cannot be shared out in many ways.
MANY = 16
SHARED = 3
ALPHABET = [chr(number) for number in range(128)] + ["\u00a0", "ä", "я", "日"]


def modules() -> Iterator[ModuleType]:
    for room in ROOMS:
        whole = importlib.import_module(room)
        for found in pkgutil.iter_modules(whole.__path__):
            if found.name != "__main__":
                yield importlib.import_module(f"{room}.{found.name}")


def patterns() -> dict[str, re.Pattern[Any]]:
    """Every compiled expression of the rooms, by where it stands; in tuples, dictionaries and data classes too."""
    found: dict[str, re.Pattern[Any]] = {}

    def collect(value: object, name: str, depth: int) -> None:
        if isinstance(value, re.Pattern):
            found[name] = value
        elif depth and isinstance(value, tuple | list):
            for index, one in enumerate(value):
                collect(one, f"{name}[{index}]", depth - 1)
        elif depth and isinstance(value, dict):
            for key, one in value.items():
                collect(one, f"{name}[{key}]", depth - 1)
        elif depth and hasattr(value, "__dataclass_fields__"):
            for key in value.__dataclass_fields__:
                collect(getattr(value, key), f"{name}.{key}", depth - 1)

    for module in modules():
        for name, value in vars(module).items():
            collect(value, f"{module.__name__}.{name}", 4)
    return found


def matched(sub: Any, flags: int) -> frozenset[str]:
    """Characters of ALPHABET that a piece of one character takes; none for longer pieces."""
    if len(sub) != 1 or sub[0][0] not in (codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN, codes.CATEGORY):
        return frozenset()
    opcode, argument = sub[0]
    if opcode is codes.LITERAL:
        return frozenset(chr(argument))
    if opcode is codes.NOT_LITERAL:
        return frozenset(ALPHABET) - {chr(argument)}
    if opcode is codes.ANY:
        return frozenset(ALPHABET) - (frozenset() if flags & re.DOTALL else {"\n"})
    taken = {char for char in ALPHABET for kind, what in argument if _takes(kind, what, char)}
    negated = bool(argument) and argument[0][0] is codes.NEGATE
    return frozenset(ALPHABET) - taken if negated else frozenset(taken)


def _takes(kind: Any, what: Any, char: str) -> bool:
    if kind is codes.LITERAL:
        return ord(char) == what
    if kind is codes.RANGE:
        return bool(what[0] <= ord(char) <= what[1])
    if kind is codes.CATEGORY:
        name = str(what).rpartition("_")[2]
        inside = {"SPACE": char.isspace(), "DIGIT": char.isdigit(), "WORD": char.isalnum() or char == "_"}[name]
        return not inside if "_NOT_" in str(what) else inside
    return False


def shared(
    sequence: Any, flags: int, before: tuple[frozenset[str], ...] = ()
) -> tuple[int, tuple[frozenset[str], ...]]:
    """How many repeats share a run at the most; and the sets of those that end where the sequence ends."""
    worst, open_sets = 0, before
    for opcode, argument in sequence:
        if opcode in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            least, most, sub = argument
            chars = matched(sub, flags)
            if chars and most >= MANY:
                open_sets = (*(one & chars for one in open_sets if one & chars), chars)
                worst = max(worst, _depth(open_sets))
                continue
            inner, after = shared(sub, flags, open_sets)
            worst = max(worst, inner)
            open_sets = after if least else (*open_sets, *(one for one in after if one not in open_sets))
        elif opcode is codes.SUBPATTERN:
            inner, open_sets = shared(argument[3], flags, open_sets)
            worst = max(worst, inner)
        elif opcode is codes.BRANCH:
            ends: list[frozenset[str]] = []
            for branch in argument[1]:
                inner, after = shared(branch, flags, open_sets)
                worst = max(worst, inner)
                if _depth(after) > _depth(tuple(ends)):
                    ends = list(after)
            open_sets = tuple(ends)
        elif opcode in (codes.AT, codes.ASSERT, codes.ASSERT_NOT):
            continue
        else:
            open_sets = ()  # a character that must be there, or what gives nothing back
    return worst, open_sets


def _depth(sets: tuple[frozenset[str], ...]) -> int:
    """How many of them have one character in common."""
    return max((sum(char in one for one in sets) for char in ALPHABET), default=0)


def worst_of(pattern: re.Pattern[Any]) -> int:
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    return shared(parser.parse(text, pattern.flags & ~re.UNICODE), pattern.flags)[0]


@pytest.mark.fault("C04")
def test_no_run_is_shared_among_three_repeats() -> None:
    found = patterns()
    assert len(found) > 200
    assert {name: pattern.pattern for name, pattern in found.items() if worst_of(pattern) >= SHARED} == {}


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        (r"a\s*:?\s*\(?\s*b", 3),
        (r"[ \t]*(?::|to)?[ \t]*=?[ \t]*<", 3),
        (r"\s*+:?\s*+\(?\s*+b", 0),
        (r"\s*x\s*x\s*", 1),
        (r"\w*[^.;]{0,50}spf", 2),
        (r"(?:a\s*|b\s*)\s*\s*", 3),
    ],
)
def test_repeats_that_share_a_run_are_counted(expression: str, count: int) -> None:
    assert worst_of(re.compile(expression)) == count


def pieces(sequence: Any) -> Iterator[tuple[Any, Any]]:
    """Everything in an expression, however deep."""
    for opcode, argument in sequence:
        yield opcode, argument
        if opcode is codes.BRANCH:
            inside = list(argument[1])
        elif opcode is codes.SUBPATTERN:
            inside = [argument[3]]
        elif opcode in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            inside = [argument[2]]
        elif opcode in (codes.ASSERT, codes.ASSERT_NOT):
            inside = [argument[1]]
        else:
            inside = []
        for one in inside:
            yield from pieces(one)


def loses_its_place(body: Any) -> bool:
    """Whether a turn of a possessive repeat that fails may leave its end where the turn came to: in what looks ahead,
    or behind what it took already.
    """
    taken = False
    for opcode, argument in body:
        if opcode is codes.SUBPATTERN and loses_its_place(argument[3]):
            return True
        if opcode is codes.ASSERT_NOT and argument[0] > 0:
            return True
        if opcode is codes.BRANCH and (taken or any(map(loses_its_place, argument[1]))):
            return True
        if opcode is codes.ASSERT and taken:
            return True
        taken = taken or opcode not in (codes.AT, codes.ASSERT, codes.ASSERT_NOT)
    return False


def goes_wrong_before_3_11_5(pattern: re.Pattern[Any]) -> bool:
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    return any(
        opcode is codes.POSSESSIVE_REPEAT and loses_its_place(argument[2])
        for opcode, argument in pieces(parser.parse(text, pattern.flags & ~re.UNICODE))
    )


def test_no_expression_needs_a_python_newer_than_debian_s() -> None:
    # github.com/python/cpython/issues/106052, mended in 3.11.5; Debian 12 has 3.11.2.
    found = patterns()
    assert {name: one.pattern for name, one in found.items() if goes_wrong_before_3_11_5(one)} == {}


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        (r"(?:\?(?!=)[^?]*+)*+\?=", True),
        (r"(?:(?!\?=)\?[^?]*+)*+\?=", True),
        (r"a(?:\s*+=\s*+(?:b+|c))?+", True),
        (r"(?:(?<!=)(?=\?[^=])\?[^?]*+)*+\?=", False),
        (r"(?:\?(?!=)[^?]*+)*\?=", False),
        (r'"(?:[^"\\]++|\\.)*+"', False),
    ],
)
def test_repeats_that_lose_their_place_are_found(expression: str, wrong: bool) -> None:
    assert goes_wrong_before_3_11_5(re.compile(expression)) is wrong
