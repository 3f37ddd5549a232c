"""Parameters of SMTP's envelope that a request may give (RFC 8621 section 7): what is allowed, and as it is sent. Pure.

Values are plain, as JMAP has them: xtext is made here. RFC 3461 (DSN), RFC 8689 (REQUIRETLS).
"""

import re
from collections.abc import Mapping
from typing import Final

from service.contract.problems import Wrong

Parameters = Mapping[str, str | None]

REQUIRETLS: Final = "REQUIRETLS"
OF_MAIL: Final = ("RET", "ENVID", REQUIRETLS)
OF_RCPT: Final = ("NOTIFY", "ORCPT")
NOTIFY: Final = frozenset({"SUCCESS", "FAILURE", "DELAY"})
_ENVID: Final = re.compile(r"[ -~]{1,100}")  # RFC 3461 4.4: printable, 100 characters before it is encoded
_ORCPT: Final = re.compile(r"[A-Za-z0-9-]{1,32};[ -~]{1,400}")  # RFC 3461 4.2: 500 in all, encoded
_NOT_XTEXT: Final = re.compile(r"[^!-*,-<>-~]")  # RFC 3461 section 4


def check_parameters(field: str, given: Parameters, known: tuple[str, ...], wrong: Wrong) -> None:
    """What is wrong with the parameters of an address."""
    for name, value in given.items():
        upper = name.upper()
        where = f"{field}.{name}" if name.isascii() and name.isalnum() else field
        if upper not in known:
            wrong(where, f"no such parameter; known are {', '.join(known)}")
        elif message := _problem(upper, value):
            wrong(where, message)
    if len({name.upper() for name in given}) < len(given):
        wrong(field, "a parameter stands here twice")


def _problem(name: str, value: str | None) -> str:
    if name == REQUIRETLS:
        return "takes no value: null is wanted" if value is not None else ""
    if value is None:
        return "a value is wanted"
    match name:
        case "RET":
            return "" if value.upper() in {"FULL", "HDRS"} else "FULL or HDRS is wanted"
        case "ENVID":
            return "" if _ENVID.fullmatch(value) else "1 to 100 printable ASCII characters are wanted"
        case "NOTIFY":
            words = value.upper().split(",")
            right = words == ["NEVER"] or (set(words) <= NOTIFY and len(set(words)) == len(words))
            return "" if right else "NEVER, or some of SUCCESS,FAILURE,DELAY are wanted"
        case _:
            right = _ORCPT.fullmatch(value) is not None
            return "" if right else "a type and an address are wanted, such as rfc822;ada@example.org"


def encoded_parameters(given: Parameters) -> dict[str, str | None]:
    """Parameters that were found right, as they stand in MAIL and RCPT."""
    return {name.upper(): _encoded(name.upper(), value) for name, value in given.items()}


def _encoded(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if name == "ENVID":
        return xtext(value)
    if name == "ORCPT":
        kind, _, address = value.partition(";")
        return f"{kind};{xtext(address)}"
    return value.upper()


def xtext(value: str) -> str:
    """RFC 3461 section 4: `+` and `=`, and what is not printable, in hexadecimal."""
    return _NOT_XTEXT.sub(lambda found: f"+{ord(found[0]):02X}", value)
