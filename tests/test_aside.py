"""Files that say nothing: nobody waits for them longer than a limit, and nobody else waits at all."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import aside as room
from service.aside import aside
from service.errors import Transient
from tests.servers.mailbus import until


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """Set: what is stuck goes on."""
    event = threading.Event()
    yield event
    event.set()


async def test_what_work_gives_and_what_it_raises_comes_back() -> None:
    assert await aside(lambda: 7, where="x", kind="accounts") == 7
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 // 0, where="x", kind="accounts")


async def test_what_says_nothing_is_given_up_and_not_begun_again_before_its_thread_has_ended(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def work() -> bool:
        begun.append(1)
        return stuck.wait(30)

    with monkeypatch.context() as impatient:
        impatient.setattr(room, "LIMIT_S", 0.1)
        for _ in range(3):
            with pytest.raises(Transient, match="nothing for"):
                await aside(work, where="stuck", kind="accounts")
    assert len(begun) == 1
    assert await aside(lambda: 7, where="other", kind="accounts") == 7
    stuck.set()
    threads = room._of_loop[asyncio.get_running_loop()]
    await until(lambda: not threads.late)
    assert await aside(work, where="stuck", kind="accounts")


async def test_where_there_is_no_thread_its_place_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", start)
        for _ in range(room.AT_ONCE + 1):
            with pytest.raises(Transient, match="no thread"):
                await aside(lambda: 7, where="x", kind="accounts")
    assert await aside(lambda: 7, where="x", kind="accounts") == 7


async def test_where_much_says_nothing_no_more_threads_are_begun(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LIMIT_S", 0.1)
    monkeypatch.setattr(room, "LATE_LIMIT", 2)
    for name in "ab":
        with pytest.raises(Transient):
            await aside(lambda: stuck.wait(30), where=name, kind="accounts")
    with pytest.raises(Transient):
        await aside(lambda: pytest.fail("begun"), where="c", kind="accounts")


@pytest.mark.fault("F10")
async def test_much_of_one_kind_that_says_nothing_holds_up_no_other_kind(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LIMIT_S", 0.1)
    waiting = (aside(lambda: stuck.wait(30), where=f"account {n}", kind="accounts") for n in range(2 * room.AT_ONCE))
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(one, Transient) for one in found)
    assert await aside(lambda: 7, where="mailbus.yaml", kind="settings") == 7
    assert await aside(lambda: 8, where="token", kind="tokens") == 8


async def test_much_that_says_nothing_in_one_place_holds_up_no_other_place(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LIMIT_S", 0.1)
    waiting = (aside(lambda: stuck.wait(30), where=f"{n}", kind="tokens", place="/a") for n in range(2 * room.AT_ONCE))
    await asyncio.gather(*waiting, return_exceptions=True)
    with pytest.raises(Transient):
        await aside(lambda: 7, where="x", kind="tokens", place="/a")
    assert await aside(lambda: 7, where="x", kind="tokens", place="/b") == 7


async def test_what_is_silent_is_tried_in_later_versions_however_many_were_before(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LIMIT_S", 0.02)
    for version in range(2 * room.AT_ONCE - 1):
        with pytest.raises(Transient):
            await aside(lambda: stuck.wait(30), where="mailbus.yaml", kind="settings", version=version)
    assert await aside(lambda: 7, where="mailbus.yaml", kind="settings", version=-1, limit_s=20) == 7


async def test_no_more_threads_wait_than_may_whatever_is_cut_short(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LIMIT_S", 0.1)
    begun: list[int] = []

    def work() -> bool:
        begun.append(1)
        return stuck.wait(30)

    for n in range(room.LATE_THREADS):
        waiting = (aside(work, where=f"{n} {m}", kind="accounts") for m in range(room.AT_ONCE))
        await asyncio.gather(*waiting, return_exceptions=True)
    assert len(begun) == room.AT_ONCE
    stuck.set()
    await until(lambda: not room._of_loop[asyncio.get_running_loop()].late)
    assert await aside(lambda: 7, where="x", kind="accounts") == 7


def test_files_are_on_what_is_mounted_nearest_above_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOUNTS", tmp_path / "mountinfo")
    assert room.mounts_of([Path("/a")]) == ""
    lines = [f"36 35 98:0 /mnt1 {point} rw,noatime - ext3 /dev/root rw" for point in ("/", "/mnt/a", r"/mnt/a\040b")]
    (tmp_path / "mountinfo").write_text("\n".join(lines))
    assert room.mounts_of([Path("/mnt/a/x/y")]) == "/mnt/a"
    assert room.mounts_of([Path("/mnt/a b/x"), Path("/mnt/ab"), Path("/mnt/a/../x")]) == "/ /mnt/a b"
