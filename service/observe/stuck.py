"""Who has been in a state for longer than is usual → a gauge by state. Used by metrics.py.

A state alone alarms nobody: of ten thousand accounts there is always one whose server is away for a minute.
"""

import time
from collections.abc import Mapping
from functools import partial

from prometheus_client import Gauge


class Stuck:
    """Since when each is in its state; `limits_s`: from when on it counts, by state. Other states never count."""

    def __init__(self, name: str, help: str, limits_s: Mapping[str, float]) -> None:
        self._since: dict[str, dict[str, float]] = {state: {} for state in limits_s}
        gauge = Gauge(name, help, ["state"])
        for state, limit_s in limits_s.items():
            gauge.labels(state=state).set_function(partial(self._count, state, limit_s))

    def moved(self, who: str, state: str | None) -> None:
        """It is in another state now; None: it is gone."""
        for since in self._since.values():
            since.pop(who, None)
        if state is not None and state in self._since:
            self._since[state][who] = time.monotonic()

    def _count(self, state: str, limit_s: float) -> int:
        # Asked by the thread that renders: what is copied in one step is whole.
        latest = time.monotonic() - limit_s
        return sum(moment <= latest for moment in list(self._since[state].values()))
