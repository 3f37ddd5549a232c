"""What a running mailbus says of itself: logs are events, metrics are counts, steps are where it may be stopped."""

from service.observe import metrics
from service.observe.logs import log, set_up_logs
from service.observe.steps import step

__all__ = ["log", "metrics", "set_up_logs", "step"]
