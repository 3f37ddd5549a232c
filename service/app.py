"""The composition root: settings → rooms, handed to each other; one process's life from start to drain.

The only file that builds rooms.
Order of a start: NATS is there, streams checked, fleet and accounts heard of, name taken, accounts started.
Order of a stop: not ready, accounts cancelled (each ends what is in hand), name given back, cursors copied.
"""

import asyncio
import gc
import signal
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from service.admin import AccountsPage, AdminServer, Snapshot
from service.budget import Budget
from service.build import (
    DELIVERIES_LIMIT,
    Gangways,
    Hosted,
    Shared,
    command_context,
    nats_options,
    stream_options,
)
from service.bus import Bus, OutMessage, open_bus
from service.catalog import Catalog, serve_admin
from service.clock import Clock, SystemClock, backoff_s
from service.commands import Fleet, serve_commands
from service.errors import EX_CONFIG, EX_FAILURE, EX_OK, MailbusError, Permanent, Transient, verdict_of
from service.fleet import (
    DRAIN_TIMEOUT_S,
    NATS_ASKED_S,
    AccountReports,
    Pace,
    Presence,
    Roster,
    Running,
    Steering,
    unending,
)
from service.imap import sweep_all
from service.ingest import Copies, Parser
from service.observe import log, metrics, set_up_logs
from service.outbound import Deliveries, Returned, Strays
from service.parsing import COMPILED
from service.reload import Reload, as_read
from service.settings import AccountSettings, Settings, Signature
from service.snapshot import behind, take_page, take_snapshot
from service.tasks import TaskGroup, cut_short

NATS_RETRY_MAX_S: Final = 15.0
FAREWELL_TIMEOUT_S: Final = 3.0
LEAVE_TIMEOUT_S: Final = 1.0
# A command waits for an account until who is gone is missed, and somebody else has it.
MOVING_S: Final = 5.0
LAG_EVERY_S: Final = 0.5
READERS_EVERY_S: Final = 30.0
# 10,000 mailboxes take two milliseconds.
BEHIND_EVERY_S: Final = 5.0
GARBAGE_EVERY_OBJECTS: Final = 10_000
# What is a little older is looked through after so many of these, and all of it after so many of those: with 100,000
# objects at a time, as Python has it, the event loop stood still for 190 ms where thousands of accounts begin again.
GARBAGE_MIDDLE_EVERY: Final = 2
GARBAGE_ALL_EVERY: Final = 50

T = TypeVar("T")


class Application:
    """One mailbus process. `ready` is what /readyz says; `file`: where the settings stand, read again as it changes.

    `was`: that file as it was before they were read.
    """

    def __init__(
        self, settings: Settings, *, file: Path | None = None, was: Signature | None = None, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._file = file
        self._clock = clock or SystemClock()
        self._boot = uuid.uuid4().hex[:12]
        self._stop = asyncio.Event()
        self._started = asyncio.Event()
        self._parser = Parser(self._clock)
        self._bus: Bus | None = None
        self._reports: AccountReports | None = None
        self._roster: Roster[AccountSettings] | None = None
        self._hosted: Hosted | None = None
        self._catalog: Catalog | None = None
        self._seen = as_read(file, settings, was)
        self._born = self._stopped = self._clock.monotonic()
        self.admin: AdminServer | None = None

    def stop(self) -> None:
        """Begin the drain; `run` returns when it is done."""
        self._stop.set()

    @property
    def ready(self) -> bool:
        """Started, not stopping, and NATS is there. An account's trouble never changes it."""
        return self._started.is_set() and not self._stop.is_set() and self._bus is not None and self._bus.connected

    async def wait_started(self) -> None:
        """Until the streams are checked, the accounts are started and commands are heard."""
        await self._started.wait()

    def snapshot(self) -> Snapshot:
        """What the status page shows."""
        return take_snapshot(
            self._reports,
            self._hosted.work if self._hosted else [],
            instance=self._settings.instance,
            uptime_s=self._clock.monotonic() - self._born,
            nats_connected=self._bus is not None and self._bus.connected,
            ready=self.ready,
            replicas=self._roster.shares() if self._roster else {},
        )

    def page(self, after: str) -> AccountsPage:
        """A page of the list of all accounts, those of other processes too."""
        owners = self._roster.owners() if self._roster else {}
        work = self._hosted.work if self._hosted else []
        paused = self._catalog.paused if self._catalog else frozenset()
        return take_page(self._reports, work, owners, paused, self._settings.instance, after)

    async def run(self) -> None:
        """Run until `stop`. Raises Permanent where settings or NATS are wrong, or the name is taken."""
        try:
            async with AsyncExitStack() as stack:
                self.admin = AdminServer(
                    self._settings.http.listen,
                    snapshot=self.snapshot,
                    accounts=self.page,
                    ready=lambda: self.ready,
                )
                await stack.enter_async_context(self.admin)
                async with TaskGroup() as group:
                    parser = unending(self._parser.run, clock=self._clock, where="parser")
                    parsing = group.create_task(parser, name="parser")
                    bus = await self._open_bus(stack)
                    if bus is not None:
                        await self._serve(bus)
                    parsing.cancel()
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from failed

    async def _open_bus(self, stack: AsyncExitStack) -> Bus | None:
        """Wait for NATS as long as it takes; None when stopped meanwhile."""

        def opening() -> Coroutine[Any, Any, Bus]:
            options = nats_options(self._settings)
            return stack.enter_async_context(open_bus(options, stream_options(self._settings)))

        return await self._patiently(opening)

    async def _patiently(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Do a part of the start, again as long as NATS is not there for it; None when stopped meanwhile."""
        attempt = 0
        while not self._stop.is_set():
            attempt += 1
            try:
                return await self._unless_stopped(work())
            except Transient as exc:
                log.warning("nats_unavailable", attempt=attempt, error=str(exc))
                pause = backoff_s(attempt, first_s=0.5, factor=2, max_s=NATS_RETRY_MAX_S, chance=self._clock.chance())
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), pause)
        return None

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do a part of the start; None where it was cut off because it is time to stop."""
        try:
            async with TaskGroup() as group:
                task = group.create_task(work, name="start")
                stop = group.create_task(self._stop.wait(), name="stop")
                await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
                stop.cancel()
                task.cancel()
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from failed
        return None if task.cancelled() else task.result()

    async def _serve(self, bus: Bus) -> None:
        bucket, copies = bus.key_value(bus.subjects.fleet), Copies(bus.key_value(bus.subjects.cursors), self._clock)
        presence = Presence(
            bucket,
            instance=self._settings.instance,
            boot=self._boot,
            capacity=self._settings.fleet.capacity,
            ttl_s=self._settings.fleet.ttl.total_seconds(),
            clock=self._clock,
        )
        self._roster = Roster(bucket, presence, self._clock)
        self._roster.know({account.id: account for account in self._settings.accounts})
        try:
            await self._unless_stopped(self._parser.started())
            _spare_garbage_collection()
            if not self._stop.is_set():
                await self._work_on(bus, self._roster, copies)
        finally:
            await _farewell(bus, presence, copies)

    async def _work_on(self, bus: Bus, roster: Roster[AccountSettings], copies: Copies) -> None:
        """Accounts and what serves them all, until stopped."""
        clock = self._clock

        async def publish(message: OutMessage) -> None:
            await bus.publish(message.subject, message.payload, message.headers)

        reports = AccountReports(bus.subjects, publish, writer=roster.presence.writer, clock=clock)

        def suppresses(account: str) -> bool:
            known = self._catalog.all.get(account) if self._catalog is not None else None
            return known is not None and known.outgoing is not None and known.outgoing.suppress

        budget, presence = Budget(self._settings.limits.memory), roster.presence
        shared = Shared(
            bus=bus,
            copies=copies,
            budget=budget,
            parser=self._parser,
            writer=roster.presence.writer,
            is_rival=roster.is_rival,
            reports=reports,
            publish=publish,
            clock=clock,
            connecting=Gangways(),
            deliveries=Deliveries(DELIVERIES_LIMIT, budget, writer=presence.writer, lives=presence.is_alive),
            returned=Returned(bus, clock, suppresses=suppresses),
            pace=Pace(),
        )
        self._bus, self._reports = bus, reports
        hosted = self._hosted = Hosted(self._settings, shared)
        folder = self._file.parent if self._file is not None else Path()
        catalog = Catalog(bus.key_value(bus.subjects.accounts), self._settings, folder, roster, reports, clock)
        self._catalog = catalog

        def sends(account: str) -> bool:
            known = catalog.all.get(account)
            return known is not None and known.outgoing is not None

        def decides(account: str) -> bool:
            return roster.decides_on(account) and not catalog.file_refused

        context = command_context(self._settings, shared, lives=presence.is_alive)
        strays = Strays(bus, clock, sends=sends, decides=decides, coming=catalog.coming)
        fleet = Fleet(
            roster.presence.instance,
            here=hosted.commands,
            known=lambda: catalog.all,
            paused=lambda: catalog.paused,
            coming=catalog.coming,
            owner=roster.owner,
            wait_moved=roster.wait_moved,
            patience_s=self._settings.fleet.ttl.total_seconds() + MOVING_S,
        )
        reload = Reload(self._file, self._settings, self._seen, catalog, clock)
        async with bus.hearing(bus.subjects.forget, bus.forget), TaskGroup() as background:

            def unended(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
                return background.create_task(unending(work, clock=clock, where=name), name=name)

            served = asyncio.Event()
            commands = unended(lambda: catalog.once_heard(serve_commands(context, fleet, served)), "commands")
            tasks = [
                commands,
                unended(partial(_present, roster, catalog.heard), "presence"),
                unended(roster.follow, "roster"),
                unended(copies.run, "copies"),
                unended(reports.run, "reports"),
                unended(partial(_watch_loop, clock), "loop-lag"),
                unended(partial(_watch_work, hosted, clock), "behind"),
                unended(partial(_watch_readers, bus, clock), "readers"),
                unended(partial(sweep_all, shared.pools.values(), clock), "command-connections"),
                unended(lambda: catalog.once_heard(strays.run()), "strays"),
                unended(catalog.follow, "catalog"),
                unended(lambda: catalog.once_heard(serve_admin(bus, catalog, clock)), "admin"),
                unended(reload.run, "settings"),
            ]
            running = Running(hosted.kind(), bus.answers, clock)
            await self._accounts(roster, running, commands, catalog.heard, served)
            await self._finish(bus, commands)
            await cut_short(tasks)

    async def _accounts(
        self,
        roster: Roster[AccountSettings],
        running: Running[AccountSettings],
        commands: asyncio.Task[None],
        known: asyncio.Event,
        served: asyncio.Event,
    ) -> None:
        """The accounts that the fleet gives to this process, until stopped; then each has ended what it had in hand.

        From then on commands are others' affair.
        """
        async with TaskGroup() as group:
            tasks = [
                group.create_task(running.run(), name="accounts"),
                group.create_task(Steering(roster, running, self._clock, known=known).run(), name="steering"),
            ]
            await self._unless_stopped(served.wait())
            await self._unless_stopped(roster.joined.wait())
            if not self._stop.is_set():
                self._started.set()
                facts = {"instance": self._settings.instance, "boot": self._boot, "compiled": COMPILED}
                log.info("started", accounts=len(roster.known), **facts)
            await self._stop.wait()
            log.info("stopping", accounts=len(running.accounts))
            self._stopped = self._clock.monotonic()
            for task in (commands, *reversed(tasks)):
                task.cancel()

    async def _finish(self, bus: Bus, commands: asyncio.Task[None]) -> None:
        """Let the commands in hand be answered, as long as there is time and NATS takes the answers."""
        left_s = self._stopped + DRAIN_TIMEOUT_S - self._clock.monotonic()
        if left_s > 0 and not commands.done() and await bus.answers(NATS_ASKED_S):
            await asyncio.wait([commands], timeout=left_s)


def _spare_garbage_collection() -> None:
    """Modules stay for ever, and few things go in circles: looking for them took 8 % of the event loop's time."""
    gc.freeze()
    gc.set_threshold(GARBAGE_EVERY_OBJECTS, GARBAGE_MIDDLE_EVERY, GARBAGE_ALL_EVERY)


async def _present(roster: Roster[AccountSettings], known: asyncio.Event) -> None:
    """Have the name once all is heard that it needs: accounts are given to whoever has one, and wait for it."""
    await known.wait()
    await roster.heard.wait()
    await roster.presence.run()


async def _farewell(bus: Bus, presence: Presence, copies: Copies) -> None:
    """What spares others a wait, where NATS still listens."""
    if await bus.answers(NATS_ASKED_S):
        with suppress(TimeoutError, MailbusError):
            async with asyncio.timeout(FAREWELL_TIMEOUT_S):
                # The name first: others wait for it, and copies never go backwards, whoever has the mailbox by then.
                with suppress(TimeoutError):
                    async with asyncio.timeout(LEAVE_TIMEOUT_S):
                        await presence.leave()
                await copies.flush()


async def _watch_loop(clock: Clock) -> None:
    """Measure how late the event loop wakes."""
    while True:
        before = clock.monotonic()
        await clock.sleep(LAG_EVERY_S)
        metrics.LOOP_LAG_SECONDS.observe(max(0.0, clock.monotonic() - before - LAG_EVERY_S))


async def _watch_work(hosted: Hosted, clock: Clock) -> None:
    """Measure how far the mailboxes are behind."""
    while True:
        metrics.BEHIND.set(behind(hosted.work))
        await clock.sleep(BEHIND_EVERY_S)


async def _watch_readers(bus: Bus, clock: Clock) -> None:
    """Say when a consumer has fallen behind what the log keeps."""
    readers = bus.readers()
    while True:
        try:
            for overrun in await readers.look():
                metrics.CONSUMER_OVERRUN.inc(overrun.lost)
                log.error("consumer_overrun", consumer=overrun.consumer, lost=overrun.lost)
        except Transient as exc:
            log.debug("consumers_not_seen", error=str(exc))
        await clock.sleep(READERS_EVERY_S)


async def run(settings: Settings, *, file: Path | None = None, was: Signature | None = None) -> int:
    """`mailbus run`: the exit code. SIGTERM and SIGINT begin the drain."""
    set_up_logs(settings.log.level, settings.log.format)
    app = Application(settings, file=file, was=was)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    try:
        await app.run()
    except Permanent as exc:
        log.error("cannot_run", error=str(exc))
        return EX_CONFIG
    except MailbusError as exc:
        log.error("failed", error=str(exc))
        return EX_FAILURE
    log.info("stopped")
    return EX_OK
