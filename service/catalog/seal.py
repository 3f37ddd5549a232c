"""A secret → what may lie in NATS, and back: Fernet (AES-128-CBC and HMAC-SHA-256), of the library `cryptography`.

The first key seals, all of them open: a new one is put first, accounts are sealed anew, and the old one goes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.errors import Permanent

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet


class Sealer:
    """The keys of the fleet; without any nothing is sealed. Settings have checked each of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        # 10 MB of memory that only those need who keep accounts in NATS.
        from cryptography.fernet import Fernet, MultiFernet

        found = [Fernet(key) for key in keys]
        self._fernet = MultiFernet(found) if found else None
        self._first = MultiFernet(found[:1]) if found else None

    def __bool__(self) -> bool:
        return self._fernet is not None

    def seal(self, text: str) -> str:
        """Hide a secret. Raises Permanent without a key."""
        if self._fernet is None:
            raise Permanent("no key to seal secrets with", where="seal.keys", remedy="write {env: …} or {file: …}")
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, token: str) -> str:
        """What was hidden. Raises Permanent where it was sealed with another key, or was changed."""
        found = _opened(self._fernet, token)
        if found is None:
            raise Permanent("a secret was sealed with a key that is not here", where="seal.keys", remedy="add its key")
        return found

    def renew(self, token: str) -> str:
        """What was hidden, hidden by the first key; as it is where that did it. Raises Permanent as `open` does."""
        text = self.open(token)
        return token if _opened(self._first, token) is not None else self.seal(text)


def _opened(fernet: "MultiFernet | None", token: str) -> str | None:
    from cryptography.fernet import InvalidToken

    try:
        return fernet.decrypt(token.encode()).decode() if fernet is not None else None
    except (InvalidToken, ValueError):
        return None
