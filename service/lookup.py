"""A host's name → its addresses, in threads of their own. Used by reach.py and oauth.

A look-up cannot be cut short: one whose name server says nothing holds its thread for half a minute and more. The
event loop's own few threads would be full of one provider's accounts, and all others would wait. So there is one
look-up a name at a time, which all who want it share, and nobody else waits for it. Nothing is remembered: each
connection looks anew.
"""

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

# Names that are looked up at once. With so many unanswered, DNS as a whole is what is away.
LIMIT: Final = 64
# family, type, protocol, canonical name, socket address: as getaddrinfo gives them.
Found = list[tuple[Any, ...]]
Answer = asyncio.Future[Found | OSError]

_under_way: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int], Answer]]] = WeakKeyDictionary()


async def addresses(host: str, port: int) -> Found:
    """Where a host can be connected, in the order to try. Raises socket.gaierror."""
    with suppress(OSError, UnicodeError):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    loop, key = asyncio.get_running_loop(), (host, port)
    asked = _under_way.setdefault(loop, {})
    answer = asked.get(key)
    if answer is None:
        if len(asked) >= LIMIT:
            raise socket.gaierror(socket.EAI_AGAIN, f"{LIMIT} names are looked up and not answered: look at DNS")
        answer = asked[key] = loop.create_future()

        def take(found: Found | OSError) -> None:
            asked.pop(key).set_result(found)

        # A daemon: a process that ends does not wait for a name server.
        arguments = (host, port, loop, take)
        threading.Thread(target=_look_up, args=arguments, name=f"look-up {host}"[:60], daemon=True).start()
    found = await asyncio.shield(answer)
    if isinstance(found, OSError):
        raise type(found)(*found.args)  # one of its own for each who waits
    return found


def _look_up(host: str, port: int, loop: asyncio.AbstractEventLoop, take: Any) -> None:
    found: Found | OSError
    try:
        found = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except OSError as exc:
        found = exc
    except UnicodeError:  # no name at all: a label that is too long, or empty
        found = socket.gaierror(socket.EAI_NONAME, "no host name")
    with suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(take, found)
