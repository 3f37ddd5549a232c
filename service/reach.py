"""A host's name → a connected socket, at an address that may be reached. Used by imap, pop3, smtp and oauth.

A name is resolved once and the address that was looked at is the one that is connected, so a name that leads elsewhere
the second time gains nothing. Whoever may write an account's host could otherwise have mailbus talk to what stands
behind it (OWASP, server-side request forgery).
"""

import asyncio
import socket
import ssl
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from service.errors import MailbusError, Permanent, Transient
from service.lookup import addresses

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PUBLIC: Final = "public"
# RFC 6052 2.1: an IPv4 address stands in the last 32 bits.
_NAT64: Final = ip_network("64:ff9b::/96")
# What an address that says nothing gets while there is another: RFC 8305 3 wants the next one tried long before the
# network gives up. A healthy server answers within one round trip.
ADDRESS_PATIENCE_S: Final = 3.0
KEEPALIVE_IDLE_S: Final = 60
KEEPALIVE_INTERVAL_S: Final = 15
KEEPALIVE_PROBES: Final = 4
_REMEDY: Final = "correct the host, or add the address to `network.allow`"


@dataclass(frozen=True, slots=True)
class Reach:
    """Which addresses may be connected. `networks` None: all but link-local ones, where clouds keep their secrets."""

    networks: tuple[Network, ...] | None = None
    public: bool = False

    def permits(self, text: str) -> bool:
        """Whether an address, as getaddrinfo writes it, is one of them."""
        address = _plain(ip_address(text.partition("%")[0]))
        if self.networks is None:
            return not (address.is_link_local or address.is_multicast or address.is_unspecified)
        if self.public and address.is_global and not address.is_multicast:
            return True
        return any(address.version == network.version and address in network for network in self.networks)


ANYWHERE: Final = Reach()


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def refused(host: str, address: str, *, where: str) -> Permanent:
    """A name leads to where nobody may connect; nothing was said there."""
    return Permanent(f"{host} is at {address}, which may not be connected", where=where, remedy=_REMEDY)


async def open_socket(host: str, port: int, reach: Reach, *, where: str) -> socket.socket:
    """Connect to the first address that answers, of those that are permitted. The caller sets the time.

    Raises OSError as connecting does, Permanent where no address is permitted.
    """
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    last = ""
    found = await addresses(host, port)
    permitted = [one for one in found if reach.permits(last := str(one[4][0]))]
    for family, kind, protocol, _, place in permitted:
        patience_s = None if place is permitted[-1][4] else ADDRESS_PATIENCE_S
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            async with asyncio.timeout(patience_s):
                await loop.sock_connect(made, place)
            return made
        except OSError as exc:
            made.close()
            failure = exc
        except BaseException:
            made.close()
            raise
    if failure is None:
        raise refused(host, last, where=where)
    raise failure


def network_error(exc: OSError, where: str) -> MailbusError:
    """What the network or TLS says → a verdict."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return Permanent(
            f"the server's certificate is refused: {exc.verify_message}",
            where=where,
            remedy="use the name that the certificate has, or name its authority in `ca`",
        )
    if isinstance(exc, ssl.SSLError):
        reason = (exc.reason or type(exc).__name__).replace("_", " ").lower()
        return Transient(f"TLS failed: {reason}", where=where, remedy="check port and `security`")
    reason = exc.strerror or type(exc).__name__
    return Transient(f"cannot connect: {reason}", where=where, remedy="check host and port")


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """A peer that vanished is found within two minutes even when nothing is sent."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
