"""Mail merge: `{{name}}` in the texts of a request, and what stands there in each recipient's message. Pure.

Used by requests.py. A value is written as its place wants it: in HTML escaped, in a header on one line.
"""

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from service.contract.problems import PROBLEMS_LIMIT, Wrong

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"
_VARIABLE: Final = re.compile(_NAME)
_PLACE: Final = re.compile(r"\{\{[ \t]*(" + _NAME + r")[ \t]*\}\}")
# Of one message: a value of a kilobyte in a thousand places is a megabyte.
BODY_LIMIT_CHARS: Final = 4 * 1024 * 1024
BODIES: Final = frozenset({"text", "html"})
_BREAKS: Final = re.compile(r"[\r\n\0]")


def check_variables(
    texts: Mapping[str, str], variables: Sequence[Mapping[str, str]], wrong: Wrong, *, line_limit_chars: int
) -> None:
    """What is wrong with the variables of each recipient: `texts` has by field where they may stand."""
    used = {field: Counter(_PLACE.findall(text)) for field, text in texts.items()}
    found = 0

    def say(field: str, message: str) -> None:
        nonlocal found
        found += 1
        wrong(field, message)

    for i, values in enumerate(variables):
        where = f"to[{i}].variables"
        if not all(map(_VARIABLE.fullmatch, values)):
            say(where, "a name has letters, digits, `_`, `.` and `-`, 64 at most, and begins with a letter or `_`")
        for field, counts in used.items():
            for name in counts.keys() - values.keys():
                say(f"{where}.{name}", f"`{field}` has {{{{{name}}}}}: give this recipient a value for it")
            size = len(texts[field]) + sum(count * len(values.get(name, "")) for name, count in counts.items())
            if size > (BODY_LIMIT_CHARS if field in BODIES else line_limit_chars):
                say(where, f"`{field}` becomes {size} characters long with them: too many")
            if field not in BODIES:
                for name in counts.keys() & values.keys():
                    if _BREAKS.search(values[name]):
                        say(f"{where}.{name}", f"stands in `{field}`: CR, LF and NUL are not allowed")
        if found >= PROBLEMS_LIMIT:
            return


def filled(text: str, variables: Mapping[str, str], *, in_html: bool = False) -> str:
    """A text with the values of one recipient, who was found to have all of them."""
    return _PLACE.sub(lambda place: html.escape(variables[place[1]]) if in_html else variables[place[1]], text)
