"""A number that goes up and down with each mail → a gauge that asks for it. Used by metrics.py."""

from prometheus_client import Gauge


class Level:
    """Counted by an integer: a gauge's own steps take a lock and a microsecond each."""

    def __init__(self, gauge: Gauge) -> None:
        self.count = 0
        gauge.set_function(lambda: self.count)
