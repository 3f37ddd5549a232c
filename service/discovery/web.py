"""An address of the web → a small document, or None. Used by find.py. TLS only, verified; no redirect to plain HTTP."""

import ssl
from collections.abc import Mapping
from typing import Final

import aiohttp

TIMEOUT_S: Final = 10.0
DOCUMENT_LIMIT_BYTES: Final = 256 * 1024
REDIRECTS_LIMIT: Final = 3


async def document(url: str, query: Mapping[str, str], context: ssl.SSLContext) -> bytes | None:
    """What stands there, up to the limit; None where nothing does, or nobody who is trusted says so."""
    connector = aiohttp.TCPConnector(ssl=context)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
            for _ in range(REDIRECTS_LIMIT):
                async with client.get(url, params=dict(query), allow_redirects=False) as response:
                    target = response.headers.get("Location", "")
                    if 300 <= response.status < 400 and target.startswith("https://"):
                        url, query = target, {}
                        continue
                    if response.status != 200:
                        return None
                    found = bytearray()
                    async for chunk in response.content.iter_any():
                        found += chunk
                        if len(found) > DOCUMENT_LIMIT_BYTES:
                            return None
                    return bytes(found)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None
    return None
