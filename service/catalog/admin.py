"""Requests on `mail.admin.accounts.<verb>` → the bucket `mail-accounts`. Any process answers, all of them hear."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from service import __version__
from service.bus import Bus, Conflict, ServiceError, serve
from service.bus import Entry as Kept
from service.catalog.catalog import Catalog
from service.catalog.entries import Entry, load_entry, resealed, sealed
from service.clock import Clock
from service.contract import ACCOUNT_ID, AccountsVerb, Problem, Problems, encode
from service.errors import Permanent, Transient
from service.observe import log
from service.settings import SettingsInvalid

SERVICE: Final = "mailbus-admin"
RETRY_S: Final = 1.0
# Between reading a key and writing it somebody else wrote: so often in a row is no chance.
TRIES: Final = 5
# An id has 64 characters and an address 320: an answer stays below half of the 1 MiB that NATS takes by default.
LIST_LIMIT: Final = 1000
# Each is read and written: so many take a second or two, and who asks waits for ten.
RESEAL_LIMIT: Final = 200
REQUEST_LIMIT_BYTES: Final = 64 * 1024

Verb = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


async def serve_admin(bus: Bus, catalog: Catalog, clock: Clock) -> None:
    """Answer until cancelled."""
    desk = _Desk(catalog)
    verbs: dict[AccountsVerb, Verb] = {
        AccountsVerb.ADD: desk.add,
        AccountsVerb.SET: desk.set,
        AccountsVerb.REMOVE: desk.remove,
        AccountsVerb.PAUSE: desk.pause,
        AccountsVerb.RESUME: desk.resume,
        AccountsVerb.LIST: desk.list,
        AccountsVerb.RESEAL: desk.reseal,
    }

    def endpoint(verb: AccountsVerb) -> Callable[[str, bytes, Mapping[str, str]], Awaitable[bytes]]:
        async def answer(_subject: str, payload: bytes, _headers: Mapping[str, str]) -> bytes:
            return encode(await verbs[verb](_request(payload)))

        return answer

    endpoints = {str(verb): (bus.subjects.admin_accounts(verb), endpoint(verb)) for verb in verbs}
    while True:
        try:
            async with serve(bus.nc, name=SERVICE, version=__version__, endpoints=endpoints):
                await asyncio.Event().wait()
        except Transient as exc:
            log.warning("admin_not_served", error=str(exc))
            await clock.sleep(RETRY_S)


class _Desk:
    """What each verb does."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def add(self, request: dict[str, Any]) -> dict[str, Any]:
        """A new account, as one writes it in the settings file; or one that shall move here from there, as it is."""
        id = await self._valid(request)

        def added(there: Entry | None) -> Entry:
            if there is not None and there.account is not None:
                raise _error(409, "id", "there is such an account already: set changes it")
            return Entry(sealed(request, self._catalog.sealer), paused=there is not None and there.paused)

        return await self._write(id, added)

    async def set(self, request: dict[str, Any]) -> dict[str, Any]:
        """Another account in the place of one that was added; paused stays paused."""
        id = await self._valid(request)

        def changed(there: Entry | None) -> Entry:
            if there is None or there.account is None:
                raise self._not_added(id, "change it there, or add it here")
            return Entry(sealed(request, self._catalog.sealer), paused=there.paused)

        return await self._write(id, changed)

    async def remove(self, request: dict[str, Any]) -> dict[str, Any]:
        """An account that was added goes; its position stays, and so does that it is paused.

        For it may move into the settings file, and whoever answers need not have read that yet.
        """
        id = _id(request)
        of_file = self._catalog.source(id) == "file"

        def removed(there: Entry | None) -> Entry | None:
            if of_file and there is not None and there.account is None:
                raise self._not_added(id, "take it out there")
            return Entry(paused=True) if there is not None and there.account is not None and there.paused else None

        if await self._catalog.bucket.get(id) is None:
            raise self._not_added(id, "take it out there")
        return await self._write(id, removed)

    async def pause(self, request: dict[str, Any]) -> dict[str, Any]:
        """Nothing is read or sent for the account until it is resumed."""
        return await self._pause(_id(request), paused=True)

    async def resume(self, request: dict[str, Any]) -> dict[str, Any]:
        """It goes on where it was."""
        return await self._pause(_id(request), paused=False)

    async def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Accounts by id, those after `after`, without anything secret; `more` where that is not all."""
        catalog, after = self._catalog, _after(request)
        ids = sorted(id for id in catalog.all if id > after)
        return {
            "more": len(ids) > LIST_LIMIT,
            "list": [
                {
                    "id": id,
                    "address": account.address,
                    "source": catalog.source(id),
                    "paused": id in catalog.paused,
                    "owner": catalog.owner(id),
                }
                for id, account in ((id, catalog.all[id]) for id in ids[:LIST_LIMIT])
            ],
        }

    async def reseal(self, request: dict[str, Any]) -> dict[str, Any]:
        """Secrets of accounts after `after`, by id, are sealed by the first key; `more` where those were not all."""
        after = _after(request)
        ids = sorted(id for id in self._catalog.added if id > after)

        def renewed(there: Entry | None) -> Entry:
            if there is None or there.account is None:
                return there or Entry()
            return Entry(resealed(there.account, self._catalog.sealer), paused=there.paused)

        for id in ids[:RESEAL_LIMIT]:
            await self._write(id, renewed)
            after = id
        return {"after": after, "more": len(ids) > RESEAL_LIMIT}

    async def _pause(self, id: str, *, paused: bool) -> dict[str, Any]:
        def changed(there: Entry | None) -> Entry:
            # Added a moment ago, it need not be heard of here yet; one that was removed while paused is paused still.
            if (there is None or there == Entry()) and id not in self._catalog.all:
                raise _error(404, "id", "no such account")
            return Entry(there.account if there is not None else None, paused=paused)

        return await self._write(id, changed)

    def _not_added(self, id: str, remedy: str) -> ServiceError:
        if self._catalog.source(id) == "file":
            return _error(400, "id", f"it stands in the settings file: {remedy}")
        return _error(404, "id", "no such account was added")

    async def _valid(self, request: dict[str, Any]) -> str:
        id = _id(request)
        try:
            await self._catalog.check(request)
        except SettingsInvalid as exc:
            problems = [Problem(*_split(problem)) for problem in exc.problems]
            raise ServiceError(400, f"account: {exc.problems[0]}", body=encode(Problems(problems))) from None
        return id

    async def _write(self, id: str, change: Callable[[Entry | None], Entry | None]) -> dict[str, Any]:
        """`change`: what there is, None where it is nothing or cannot be read, to what shall be there."""
        for _ in range(TRIES):
            there = await self._catalog.bucket.get(id)
            before = load_entry(there.value) if there is not None else None
            try:
                after = change(before)
                if after is None and there is not None:
                    await self._catalog.bucket.remove(id, there.revision)
                elif after is not None and after != before:
                    await self._put(id, there, after)
            except Conflict:
                continue
            except ServiceError:
                raise
            except Permanent as exc:
                raise _error(400, exc.where, f"{id}: {exc.what}: {exc.remedy}") from None
            if after is None or after.account is None:
                return {"id": id}
            # While it stands in both, the settings file's counts.
            return {"id": id, "source": self._catalog.source(id), "paused": after.paused}
        raise _error(503, "id", "somebody else changes it: ask again")

    async def _put(self, id: str, there: Kept | None, entry: Entry) -> None:
        value = msgspec.json.encode(entry)
        if there is None:
            await self._catalog.bucket.create(id, value)
        else:
            await self._catalog.bucket.update(id, value, there.revision)


def _request(payload: bytes) -> dict[str, Any]:
    if len(payload) > REQUEST_LIMIT_BYTES:
        raise _error(400, "", f"larger than {REQUEST_LIMIT_BYTES} bytes")
    try:
        return msgspec.json.decode(payload or b"{}", type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise _error(400, "", f"no JSON object: {exc}") from None


def _id(request: dict[str, Any]) -> str:
    id = request.get("id")
    if not isinstance(id, str) or not ACCOUNT_ID.fullmatch(id):
        raise _error(400, "id", "write 1 to 64 letters, digits, - or _")
    return id


def _after(request: dict[str, Any]) -> str:
    after = request.get("after", "")
    if not isinstance(after, str):
        raise _error(400, "after", "write the last id that you have")
    return after


def _error(code: int, field: str, message: str) -> ServiceError:
    problem = Problem(field, message)
    return ServiceError(code, str(problem), body=encode(Problems([problem])))


def _split(problem: str) -> tuple[str, str]:
    field, _, message = problem.partition(": ")
    return field, message
