"""What is wrong with a command, as the answer's error: code, one line, and every problem as JSON in the body."""

from collections.abc import Sequence

from service.bus import ServiceError
from service.contract import Problem, Problems, encode


def error(code: int, problems: Sequence[Problem]) -> ServiceError:
    """The error of one or more problems; the first is the header's line."""
    first = problems[0]
    what = f"{first.field}: {first.message}" if first.field else first.message
    return ServiceError(code, what, body=encode(Problems(list(problems))))
