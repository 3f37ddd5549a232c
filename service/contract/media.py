"""Addresses of SMTP's envelope and media types of attachments, as a request may have them. Pure.

Used by requests.py. RFC 5321 4.1.2 (with UTF-8: RFC 6531 3.3), 4.1.3 (literals); RFC 5891 (domains); RFC 2045 5.1.
"""

import ipaddress
import re
from contextlib import suppress
from typing import Final

import idna

# Within quotes < and > are legal too; a server that reads them as the end of the path is one too many.
_QUOTED: Final = r'"(?:[^\x00-\x1f\x7f-\x9f"\\<>]|\\[ -;=?-~]){1,62}"'
_DOTTED: Final = r"[^\s\x00-\x20\x7f-\x9f<>()\[\]\\,;:@\"]{1,64}"
_NAME: Final = r"[^\s\x00-\x20\x7f-\x9f<>()\[\]\\,;:@\"]{1,255}"
_ADDRESS: Final = re.compile(
    rf"(?:{_QUOTED}|{_DOTTED})@(?:{_NAME}|\[(?:(?P<v6>IPv6:[0-9A-Fa-f:.]+)|(?P<v4>[0-9.]+))\])"
)
_TOKEN: Final = r"[A-Za-z0-9!#$&^_.+-]"
_TYPE: Final = rf"(?!(?i:multipart|message)/){_TOKEN}{{1,60}}/{_TOKEN}{{1,100}}"
_VALUE: Final = rf'(?:{_TOKEN}{{1,200}}|"(?:[ !#-\[\]-~]|\\[ -~]){{0,200}}")'
_PARAMETER: Final = rf"[ \t]*;[ \t]*({_TOKEN}{{1,60}}={_VALUE})"
_MEDIA_TYPE: Final = re.compile(rf"({_TYPE})((?:{_PARAMETER}){{0,10}})")


def ascii_domain(address: str) -> str:
    """The address with its domain as the DNS has it (RFC 5891, with UTS 46 mapping). Raises ValueError."""
    if address.isascii():
        return address
    local, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    try:
        return f"{local}@{idna.encode(domain, uts46=True).decode('ascii')}"
    except idna.IDNAError as exc:
        raise ValueError(f"the domain is not a name: {exc}") from exc


def one_spelling(address: str) -> str:
    """The same for all spellings of an address whose domain differs in case or script (RFC 5890 2.3.2.4)."""
    with suppress(ValueError):
        address = ascii_domain(address)
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{domain.lower()}"


def spellings(address: str) -> list[str]:
    """The address as it is, with its domain as the DNS has it, and with it in its own script (RFC 5890 2.3.2.1)."""
    local, at, domain = address.rpartition("@")
    domains = [domain]
    with suppress(idna.IDNAError):
        domains.append(idna.encode(domain, uts46=True).decode("ascii"))
        domains.append(idna.decode(domains[-1], uts46=True))
    return [f"{local}{at}{one}" for one in dict.fromkeys(domains)]


def is_address(text: str) -> bool:
    """Whether it is an address: a local part, quoted where need be, and a domain or an address literal."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return False
    try:
        if found["v4"]:
            ipaddress.IPv4Address(found["v4"])
        elif found["v6"]:
            ipaddress.IPv6Address(found["v6"].removeprefix("IPv6:"))
    except ValueError:
        return False
    # RFC 5321 2.3.5: no label is empty. The DNS's own dot at the end has some programs read another address, or none.
    return "" not in text.rpartition("@")[2].split(".")


def address_problem(text: str, *, domain: bool = True) -> str | None:
    """What is wrong with an address; None where nothing is. `domain`: whether the DNS can have it, too."""
    if not is_address(text):
        return "not an address: local@domain is wanted"
    try:
        if domain:
            ascii_domain(text)
    except ValueError as exc:
        return str(exc)
    return None


def media_type(text: str) -> list[str] | None:
    """A media type and its parameters, each whole; None for what is none, and for multipart and message.

    RFC 2046: those two want an encoding that would change what is in them.
    """
    found = _MEDIA_TYPE.fullmatch(text)
    return [found[1], *re.findall(_PARAMETER, found[2])] if found else None
