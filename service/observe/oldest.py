"""How long the oldest of what waits has waited, over all accounts of a process: a gauge that grows by itself."""

import time
from datetime import datetime
from typing import Final

from prometheus_client import Gauge


class Oldest:
    """Since when something waits, by whom; the metric has the longest of them, 0 where nothing waits."""

    def __init__(self, name: str, help: str) -> None:
        self._since: dict[str, float] = {}
        # Asked by the thread that renders: what is copied in one step is whole.
        Gauge(name, help).set_function(lambda: _age_s(list(self._since.values())))

    def since(self, who: str, moment: datetime) -> None:
        """What waits there longest came then."""
        self._since[who] = moment.timestamp()

    def nothing(self, who: str) -> None:
        """Nothing waits there any more."""
        self._since.pop(who, None)


_NONE: Final = 0.0


def _age_s(since: list[float]) -> float:
    return max(_NONE, time.time() - min(since)) if since else _NONE
