"""An address → all that says where its mail is, the surest first. Used by the command line."""

import ssl
from dataclasses import dataclass
from typing import Final

import idna

from service.discovery.autoconfig import Server, servers_in
from service.discovery.names import IMAP, SMTP, Names
from service.discovery.web import document
from service.errors import MailbusError, PeerError
from service.secure import client_context
from service.settings import PRESETS, AccountSettings

# The provider's own word, by the two addresses that Mozilla names; then Mozilla's list of providers.
OWN: Final = (
    "https://autoconfig.{domain}/mail/config-v1.1.xml",
    "https://{domain}/.well-known/autoconfig/mail/config-v1.1.xml",
)
LISTED: Final = "https://autoconfig.thunderbird.net/v1.1/{domain}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. `preset` where it is a known provider, with what it wants; `source` says who says so."""

    source: str
    imap: Server | None
    smtp: Server | None
    preset: str | None = None


@dataclass(frozen=True, slots=True)
class Ways:
    """Whom to ask: DNS (None: not to be had), and addresses of the web with `{domain}` in them."""

    names: Names | None
    tls: ssl.SSLContext
    own: tuple[str, ...] = OWN
    listed: str = LISTED

    @classmethod
    def of_system(cls) -> tuple["Ways", MailbusError | None]:
        """As this machine has them, and why one of them is missing."""
        try:
            return cls(Names.of_system(), client_context(None)), None
        except MailbusError as exc:
            return cls(None, client_context(None)), exc


async def find(address: str, ways: Ways) -> list[Finding]:
    """What is known of the address, the surest first; empty where nobody knows it. Raises PeerError for no address."""
    local, at, domain = address.rpartition("@")
    try:
        domain = idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError as exc:
        raise PeerError(f"{address} is no mail address", remedy="write it whole, such as support@example.com") from exc
    if not at or not local:
        raise PeerError(f"{address} is no mail address", remedy="write it whole, such as support@example.com")
    found = [_preset(name, "addresses of its own") for name, preset in PRESETS.items() if domain in preset.domains]
    found += await _by_names(domain, ways)
    for place in ways.own:
        # Only the provider itself hears the whole address.
        found += await _by_web(place.format(domain=domain), {"emailaddress": address}, address, ways)
    hosts = await ways.names.mail_hosts(domain) if ways.names else []
    found += [
        _preset(name, f"the domain's mail goes to {hosts[0]}")
        for name, preset in PRESETS.items()
        if any(host == end or host.endswith(f".{end}") for host in hosts[:1] for end in preset.mx)
    ]
    found += await _by_web(ways.listed.format(domain=domain), {}, address, ways)
    once: dict[tuple[Server | None, Server | None, str | None], Finding] = {}
    for one in found:
        once.setdefault((one.imap, one.smtp, one.preset), one)
    return list(once.values())


async def _by_names(domain: str, ways: Ways) -> list[Finding]:
    if ways.names is None:
        return []
    imap, smtp = await ways.names.server(IMAP, domain), await ways.names.server(SMTP, domain)
    return [Finding("SRV records of the domain", imap, smtp)] if imap or smtp else []


async def _by_web(url: str, query: dict[str, str], address: str, ways: Ways) -> list[Finding]:
    content = await document(url, query, ways.tls)
    if content is None:
        return []
    try:
        imap, smtp = servers_in(content, address)
    except PeerError:
        return []
    return [Finding(url.partition("//")[2].partition("/")[0], imap, smtp)] if imap or smtp else []


def _preset(name: str, why: str) -> Finding:
    fills = {"id": "x", "address": "x@example.com"} | dict(PRESETS[name].fills)
    account = AccountSettings.model_validate(fills)
    imap = account.incoming.imap if account.incoming else None
    smtp = account.outgoing.smtp if account.outgoing else None
    return Finding(
        f"{PRESETS[name].title}: {why}",
        Server(imap.host, imap.port, imap.security) if imap else None,
        Server(smtp.host, smtp.port, smtp.security) if smtp else None,
        name,
    )
