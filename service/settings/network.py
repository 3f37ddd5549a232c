"""Where accounts' servers may be: networks as an operator writes them → what connecting asks. Used by model.py."""

from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from service.reach import ANYWHERE, PUBLIC, Reach
from service.settings.part import Part
from service.settings.values import text, wrong


def _network(value: Any) -> str:
    """A network, or `public`."""
    written = text(value)
    try:
        return PUBLIC if written == PUBLIC else str(ip_network(written))
    except ValueError:
        raise wrong("write a network such as 10.0.0.0/8 or 192.0.2.7/32, or public") from None


class NetworkSettings(Part):
    """Where mail servers and token endpoints may be."""

    allow: tuple[Annotated[str, BeforeValidator(_network)], ...] | None = Field(
        default=None,
        description="Networks whose addresses may be connected, such as `[public, 10.1.0.0/16]`; `public`: all of the"
        " internet. `null`: everything but link-local addresses",
    )

    @property
    def reach(self) -> Reach:
        """As what connects wants it."""
        if self.allow is None:
            return ANYWHERE
        return Reach(tuple(ip_network(one) for one in self.allow if one != PUBLIC), PUBLIC in self.allow)
