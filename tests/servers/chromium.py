"""Debian's Chromium without a window, driven by its own debugging protocol: what a page shows and what it asks for."""

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import pytest

START_S = 60.0
ANSWER_S = 30.0
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


class Page:
    """One tab. `requests` are the URLs it asked for, `complaints` what its console and its policy said."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._reader = self._group.create_task(self._read(), name="chromium")
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def _read(self) -> None:
        async for message in self._socket:
            data = json.loads(message.data)
            if "id" in data:
                answer = self._answers.pop(data["id"])
                if not answer.done():
                    answer.set_result(data)
                continue
            params = data.get("params", {})
            match data["method"]:
                case "Network.requestWillBeSent":
                    self.requests.append(params["request"]["url"])
                case "Runtime.exceptionThrown":
                    self.complaints.append(str(params["exceptionDetails"]))
                case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                    self.complaints.append(params["entry"]["text"])
                case "Page.javascriptDialogOpening":
                    self.complaints.append(f"dialog: {params['message']}")
                case _:
                    pass

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        self._number += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = answer
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        async with asyncio.timeout(ANSWER_S):
            result = await answer
        assert "error" not in result, (method, result["error"])
        found: dict[str, Any] = result["result"]
        return found

    async def go(self, url: str) -> None:
        """Open an address and wait for its document; whether it has drawn itself is for `until` to wait for."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, expression: str, *, limit_s: float = 20.0) -> None:
        """Wait until an expression is true."""
        deadline = asyncio.get_running_loop().time() + limit_s
        while not await self.ask(expression):
            if asyncio.get_running_loop().time() > deadline:
                shown = await self.ask("document.body.innerText")
                pytest.fail(f"not within {limit_s:g} s: {expression}\n{shown}\n{self.complaints}")
            await asyncio.sleep(0.05)

    async def look(self, *, width: int = 1100, height: int = 800, dark: bool = False) -> None:
        """A window of that size, in light or dark."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, file: Path) -> None:
        """The whole page as a PNG."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        await asyncio.to_thread(file.write_bytes, base64.b64decode(shot["data"]))


def _start(program: str, profile: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [program, *QUIET, f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"HOME": str(profile.parent), "PATH": "/usr/bin:/bin"},
    )


def _written_port(file: Path) -> int | None:
    """The port that Chromium writes down once it listens."""
    lines = file.read_text().splitlines() if file.exists() else []
    return int(lines[0]) if lines else None


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Page]:
    """A browser with one empty tab, ended with the block."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.fail("no chromium here: sudo apt-get install -y chromium")
    profile = folder / "chromium"
    process = _start(program, profile)
    try:
        port = await _port(profile / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = await answer.json()
            tab = next(tab for tab in tabs if tab["type"] == "page")
            async with http.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket, Page(socket) as page:
                yield page
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = asyncio.get_running_loop().time() + START_S
    while (port := _written_port(file)) is None:
        if process.poll() is not None:
            pytest.fail(f"chromium ended with {process.returncode}")
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"chromium does not listen after {START_S:g} s")
        await asyncio.sleep(0.05)
    return port
