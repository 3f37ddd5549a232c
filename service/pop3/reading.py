"""Messages by their places in a listing; and which of them a connection broke at. Used where messages are looked at."""

from collections.abc import Callable, Sequence

from service.errors import Transient
from service.pop3.session import Session
from service.pop3.stock import Listing


async def read_at(
    session: Session,
    listing: Listing,
    places: Sequence[int],
    give: Callable[[int, bytes], None],
    *,
    whole: bool,
    lines: int = 0,
    broke: Callable[[int], None],
) -> list[int]:
    """As Session.read, by index.

    Where the connection breaks the first one that did not come may be why, unless the server says when to come back:
    `broke` is told of it.
    """
    left = {listing.numbers[at]: at for at in places}

    def take(number: int, body: bytes) -> None:
        give(left.pop(number), body)

    try:
        refused = await session.read(list(left), take, whole=whole, lines=lines)
    except Transient as exc:
        if exc.retry_after_s is None and left:
            broke(next(iter(left.values())))
        raise
    return [left[number] for number in refused]
