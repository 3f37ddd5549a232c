"""Files of credentials for NATS → what its client takes, checked before it does. Used by connection.py."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import nkeys

from service.errors import Permanent

SECRET_LIMIT_BYTES: Final = 64 * 1024

_CREDS: Final = re.compile(
    rb"-BEGIN NATS USER JWT-+\s+\S+\s+-+END NATS USER JWT-+.*-BEGIN USER NKEY SEED-+\s+(\S+)\s", re.DOTALL
)


def read_secrets(files: Mapping[str, Path], where: str) -> dict[str, str]:
    """What their files hold now. Raises OSError, ValueError, Permanent: none of them shows a secret."""
    found = {}
    for name, path in files.items():
        with open(path, "rb") as file:
            content = file.read(SECRET_LIMIT_BYTES)
        try:
            found[name] = content.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not UTF-8") from None
        if not found[name]:  # as where it is being written
            raise ValueError(f"{path} is empty")
    if "nkey_seed" in found:
        check_seed(found["nkey_seed"].strip().encode(), "nats.nkey_seed", where)
    return found


def read_creds(path: str, where: str) -> str:
    """A creds file that can be read and used. Raises Permanent, which does not show it."""
    try:
        with open(path, "rb") as file:
            content = file.read(SECRET_LIMIT_BYTES)
    except OSError as exc:
        raise Permanent(f"nats.creds: {exc.strerror}", where=where, remedy=f"is {path} there?") from exc
    found = _CREDS.search(content)
    if found is None:
        raise Permanent("nats.creds is no creds file", where=where, remedy="it holds a user's JWT and NKEY seed")
    check_seed(found[1], "nats.creds", where)
    return content.decode("ascii", "replace")


def check_seed(seed: bytes, field: str, where: str) -> None:
    """A seed that is one. Raises Permanent, which does not show it."""
    broken = False
    try:
        nkeys.from_seed(bytearray(seed)).wipe()
    except Exception:  # noqa: BLE001 nkeys and PyNaCl have no common error; none is kept, for it may show the seed
        broken = True
    if broken:
        raise Permanent(f"{field} is no NKEY seed", where=where, remedy="a user's seed begins with SU")
