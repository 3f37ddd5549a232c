"""Mozilla's autoconfig XML → IMAP and SMTP servers. No input or output.

Used by find.py. Format: https://wiki.mozilla.org/Thunderbird:Autoconfiguration:ConfigFileFormat.
"""

import re
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from service.contract import Security
from service.errors import PeerError

SECURITY: Final = {"SSL": Security.TLS, "STARTTLS": Security.STARTTLS}
HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})")
PORT: Final = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Server:
    """Where one protocol is spoken; never in the clear. `username` as the server wants it, empty where nobody says."""

    host: str
    port: int
    security: Security
    username: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port} ({self.security})"


def servers_in(document: bytes, address: str) -> tuple[Server | None, Server | None]:
    """The first IMAP and the first SMTP server with TLS in it. Raises PeerError where it is no such document."""
    # Entities are how a small document grows; this format has no use for them.
    if b"<!" in document.replace(b"<!--", b"") or b"\0" in document:
        raise PeerError("an autoconfig document with declarations in it")
    try:
        root = ElementTree.fromstring(document)  # noqa: S314 refused above: declarations, and so entities
    except ElementTree.ParseError as exc:
        raise PeerError("no autoconfig document") from exc
    provider = root.find("emailProvider")
    if provider is None:
        raise PeerError("no autoconfig document")
    imap = [_server(one, address) for one in provider.findall("incomingServer") if one.get("type") == "imap"]
    smtp = [_server(one, address) for one in provider.findall("outgoingServer") if one.get("type") == "smtp"]
    return next(filter(None, imap), None), next(filter(None, smtp), None)


def _server(element: ElementTree.Element, address: str) -> Server | None:
    local, _, domain = address.rpartition("@")
    host = _filled(element.findtext("hostname", ""), address, local, domain)
    port = element.findtext("port", "").strip()
    security = SECURITY.get(element.findtext("socketType", "").strip())
    if security is None or HOST.fullmatch(host) is None or PORT.fullmatch(port) is None or not 0 < int(port) < 65536:
        return None
    return Server(host, int(port), security, _filled(element.findtext("username", ""), address, local, domain))


def _filled(text: str, address: str, local: str, domain: str) -> str:
    for name, value in (("%EMAILADDRESS%", address), ("%EMAILLOCALPART%", local), ("%EMAILDOMAIN%", domain)):
        text = text.replace(name, value)
    return text.strip()
