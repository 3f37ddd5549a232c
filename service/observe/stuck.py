"""Who has been in a state for longer than is usual → a gauge by state. Used by metrics.py.

A state alone alarms nobody: of ten thousand accounts there is always one whose server is away for a minute.
"""

import time
from collections.abc import Mapping
from functools import partial

from prometheus_client import Gauge


class Stuck:
    """How long each was in which state; `limits_s`: from when on it counts there. Any other state begins it anew.

    What comes and goes between two of these states counts in each of them by the time that it was there in all.
    """

    def __init__(self, name: str, help: str, limits_s: Mapping[str, float]) -> None:
        self._spent: dict[str, dict[str, float]] = {state: {} for state in limits_s}
        # The state of each, and since when.
        self._now: dict[str, tuple[str, float]] = {}
        gauge = Gauge(name, help, ["state"])
        for state, limit_s in limits_s.items():
            gauge.labels(state=state).set_function(partial(self._count, state, limit_s))

    def moved(self, who: str, state: str | None) -> None:
        """It is in another state now; None: it is gone."""
        now = time.monotonic()
        before, since = self._now.pop(who, ("", now))
        if state is None or state not in self._spent:
            for spent in self._spent.values():
                spent.pop(who, None)
            return
        if before:
            self._spent[before][who] = self._spent[before].get(who, 0.0) + now - since
        self._now[who] = (state, now)

    def _count(self, state: str, limit_s: float) -> int:
        # Asked by the thread that renders: what is copied in one step is whole.
        spent, there = dict(self._spent[state]), list(self._now.items())
        now = time.monotonic()
        for who, (its_state, since) in there:
            if its_state == state:
                spent[who] = spent.get(who, 0.0) + now - since
        return sum(spent_s >= limit_s for spent_s in spent.values())
