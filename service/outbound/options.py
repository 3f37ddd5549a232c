"""What sending must know of an account: plain values, made by the composition root from settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from service.contract import SendLimits
from service.outbound.dkim import DkimSigner

# Of a request with a message for each recipient, so many share an intent: more would be uncertain after a crash, fewer
# would cost more writes.
TOGETHER: Final = 8
DAY_S: Final = 86400.0
DEFAULT_LIMITS: Final = SendLimits(expires_s=5 * DAY_S, window_s=30 * DAY_S)


ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Limit:
    """Of mails to one domain of recipients: seconds between two, and how many at once; 0 is no limit."""

    interval_s: float = 0.0
    at_once: int = 0


NO_LIMIT: Final = Limit()


@dataclass(frozen=True, slots=True)
class OutboundOptions:
    """`address`: the default From. `redirect`: gets everything instead (staging). Durations in seconds.

    `verp`: the reverse-path, with `{}` where a mail's proof stands; "": the sender's address.
    """

    account: str
    address: str
    uncertain: Literal["retry", "hold"] = "retry"
    retry_first_s: float = 60.0
    retry_factor: float = 2.0
    retry_max_s: float = 4 * 3600.0
    limits: SendLimits = DEFAULT_LIMITS
    redirect: str | None = None
    verp: str = ""
    dkim: tuple[DkimSigner, ...] = ()
    # Between two mails at the least.
    interval_s: float = 0.0
    # By domain of the recipients; `*`: each that has none of its own.
    domains: Mapping[str, Limit] = field(default_factory=dict)
