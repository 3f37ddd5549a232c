"""A refresh token that the provider changes: kept before it is needed, never lost while the process runs."""

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest

from service.errors import AuthRefused, Permanent, Transient
from tests.oauth.harness import MARKER, shown, tokens
from tests.servers.clock import FakeClock
from tests.servers.mailbus import until
from tests.servers.oauth import OAuthMaker, OAuthServer


@pytest.mark.fault("G05")
async def test_a_new_refresh_token_is_on_disk_before_its_access_token_is_used(
    make_oauth: OAuthMaker, tmp_path: Path
) -> None:
    oauth = await make_oauth(rotates=True)
    file = tmp_path / "refresh"
    file.write_text(oauth.refresh_token + "\n")
    file.chmod(0o644)
    source = tokens(oauth, refresh_file=file)
    first = await source.get()
    assert file.read_text() == oauth.refresh_token + "\n" == "refresh-marker-1\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await source.renew(first)
    # Another process, and this one after a restart, finds the one that is good.
    again = tokens(oauth, refresh_token="void by now", refresh_file=file)
    assert await again.get() in oauth.tokens
    assert source.unkept is None
    assert os.listdir(tmp_path).count("refresh") == 1
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".refresh")]


@pytest.mark.fault("G05")
async def test_a_refresh_token_that_an_operator_puts_into_its_file_is_used(oauth: OAuthServer, tmp_path: Path) -> None:
    clock = FakeClock()
    file = tmp_path / "refresh"
    file.write_text("revoked")
    source = tokens(oauth, clock, refresh_token="revoked", refresh_file=file)
    with pytest.raises(AuthRefused):
        await source.get()
    file.write_text(oauth.refresh_token)
    await clock.advance(300)
    assert await source.get() in oauth.tokens


@pytest.mark.fault("G05")
async def test_a_refresh_token_that_cannot_be_kept_is_used_and_said(make_oauth: OAuthMaker, tmp_path: Path) -> None:
    oauth = await make_oauth(rotates=True)
    clock = FakeClock()
    file = tmp_path / "away" / "refresh"
    source = tokens(oauth, clock, refresh_file=file)
    works: list[None] = []
    with pytest.raises(Permanent, match="cannot be kept") as failed:
        await source.watch(lambda: works.append(None))
    assert works == []
    assert "{file: PATH}" in failed.value.remedy
    assert MARKER not in shown(failed.value)
    # It is not lost while this process runs, and is kept as soon as it can be.
    assert await source.renew(await source.get()) in oauth.tokens
    file.parent.mkdir()
    watching = asyncio.ensure_future(source.watch(lambda: works.append(None)))
    await until(lambda: bool(works))
    assert file.read_text().strip() == oauth.refresh_token
    watching.cancel()


async def test_a_refresh_token_of_the_environment_cannot_be_kept(make_oauth: OAuthMaker) -> None:
    oauth = await make_oauth(rotates=True)
    with pytest.raises(Permanent, match="as text or in a variable"):
        await tokens(oauth).watch(lambda: None)


@pytest.mark.fault("G05")
async def test_whoever_is_cancelled_lets_the_new_refresh_token_arrive(make_oauth: OAuthMaker, tmp_path: Path) -> None:
    oauth = await make_oauth(rotates=True, slow_s=0.1)
    file = tmp_path / "refresh"
    file.write_text(oauth.refresh_token)
    source = tokens(oauth, refresh_file=file)
    task = asyncio.ensure_future(source.get())
    await until(lambda: bool(oauth.asked))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert file.read_text().strip() == oauth.refresh_token != "refresh-marker-0"


async def test_a_file_of_a_refresh_token_that_says_nothing_holds_up_nobody_else(
    make_oauth: OAuthMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.aside.LIMIT_S", 0.1)
    oauth = await make_oauth()
    pipe = tmp_path / "refresh"
    os.mkfifo(pipe)
    source = tokens(oauth, refresh_file=pipe)
    with pytest.raises(Transient, match="nothing for"):
        await source.get()
    # A process that ends waits for no such thread.
    assert [thread.daemon for thread in threading.enumerate() if str(pipe)[:20] in thread.name] == [True]
    assert oauth.asked == []
    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))  # lets the thread go on
