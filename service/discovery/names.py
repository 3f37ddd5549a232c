"""A domain → what DNS says of its mail: SRV (RFC 6186, RFC 8314 5.1) and MX. Used by find.py.

The only file that knows dnspython, which is an extra: `pip install mailbus[discover]`.
"""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from service.contract import Security
from service.discovery.autoconfig import HOST, Server
from service.errors import Permanent

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

TIMEOUT_S: Final = 5.0
# RFC 6186 3.1 and RFC 8314 5.1: TLS from the first byte before STARTTLS.
IMAP: Final = (("_imaps._tcp", Security.TLS), ("_imap._tcp", Security.STARTTLS))
SMTP: Final = (("_submissions._tcp", Security.TLS), ("_submission._tcp", Security.STARTTLS))


@dataclass(frozen=True, slots=True)
class Names:
    """The resolver of this machine, or of a test."""

    resolver: "Resolver"

    @classmethod
    def of_system(cls) -> "Names":
        """Raises Permanent where dnspython is not installed, or no resolver is configured."""
        try:
            from dns.asyncresolver import Resolver
            from dns.resolver import NoResolverConfiguration
        except ImportError as exc:
            raise Permanent(
                "dnspython is not installed", where="DNS", remedy="pip install 'mailbus[discover]'"
            ) from exc
        try:
            return cls(Resolver())
        except NoResolverConfiguration as exc:
            raise Permanent("no name server is configured", where="DNS", remedy="see /etc/resolv.conf") from exc

    async def server(self, services: tuple[tuple[str, Security], ...], domain: str) -> Server | None:
        """The best server of the first service that the domain has."""
        for service, security in services:
            records = await self._ask(f"{service}.{domain}", "SRV")
            # RFC 2782: the lowest priority, by weight among equals.
            best = min((record.priority for record in records), default=0)
            chosen = [record for record in records if record.priority == best]
            if not chosen:
                continue
            one = random.choices(chosen, [record.weight + 1 for record in chosen])[0]
            host = one.target.to_text(omit_final_dot=True)
            # RFC 6186 3.4: the root as target says that there is none.
            if HOST.fullmatch(host):
                return Server(host, one.port, security)
        return None

    async def mail_hosts(self, domain: str) -> list[str]:
        """The names of the domain's MX hosts, in lower case, the preferred first."""
        records = sorted(await self._ask(domain, "MX"), key=lambda record: record.preference)
        return [record.exchange.to_text(omit_final_dot=True).lower() for record in records]

    async def _ask(self, name: str, kind: str) -> list[Any]:
        from dns.exception import DNSException

        try:
            return list(await self.resolver.resolve(name, kind, lifetime=TIMEOUT_S, search=False))
        except DNSException:
            return []
