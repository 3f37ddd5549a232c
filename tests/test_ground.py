"""The ground floor: verdicts, back-off, stop points, logs without secrets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clock import SystemClock, backoff_s
from service.errors import (
    AuthRefused,
    MailbusError,
    PeerError,
    Permanent,
    Superseded,
    Transient,
    Uncertain,
    verdict_of,
)
from service.observe.steps import STOP_EXIT_CODE


def run(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, with these variables."""
    whole = {**os.environ, **env}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=whole, timeout=60, check=False
    )


def test_an_error_shows_what_where_and_remedy() -> None:
    assert str(MailbusError("w")) == "w"
    assert str(Transient("what", where="host:1")) == "what [host:1]"
    assert str(Permanent("what", where="host:1", remedy="do")) == "what [host:1]: do"
    assert Transient("x", retry_after_s=5).retry_after_s == 5


def test_there_are_four_verdicts() -> None:
    assert set(MailbusError.__subclasses__()) >= {Transient, Permanent, Uncertain, Superseded}
    assert issubclass(PeerError, Transient)
    assert issubclass(AuthRefused, Permanent)


def test_a_bug_decides_before_a_verdict_however_deep() -> None:
    bug = ValueError("x")
    assert verdict_of(ExceptionGroup("g", [Transient("a"), ExceptionGroup("h", [Permanent("b"), bug])])) is bug
    only = Uncertain("u")
    assert verdict_of(ExceptionGroup("g", [ExceptionGroup("h", [only])])) is only


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_back_off_grows_to_its_limit_and_half_of_it_is_jitter(attempt: int, chance: float) -> None:
    pause = backoff_s(attempt, first_s=1, factor=2, max_s=300, chance=chance)
    whole = min(300.0, 2.0 ** min(attempt - 1, 64))
    assert whole / 2 <= pause <= whole


def test_the_systems_clock_is_aware_and_never_goes_back() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() is not None
    assert clock.monotonic() <= clock.monotonic()
    assert 0 <= clock.chance() < 1


STEPS = "from service.observe import step\nfor n in 'abc': step(n)\nprint('end')"


def test_a_stop_point_does_nothing_unless_armed() -> None:
    assert run(STEPS).stdout == "end\n"


@pytest.mark.parametrize(("at", "names"), [("1", ["a"]), ("2", ["a", "b"]), ("b", ["a", "b"]), ("9", ["a", "b", "c"])])
def test_a_process_stops_at_the_named_step(at: str, names: list[str], tmp_path: Path) -> None:
    log = tmp_path / "steps"
    done = run(STEPS, MAILBUS_STOP_AT=at, MAILBUS_STEPS_LOG=str(log))
    assert log.read_text().split() == names
    assert done.returncode == (0 if at == "9" else STOP_EXIT_CODE)


LOGS = """
from service.observe import log, set_up_logs
set_up_logs("debug", "{form}")
log.info("connected", account="a", password="hunter2", token="hunter2", nkey_seed="hunter2")
import logging
logging.getLogger("aioimaplib").debug("LOGIN a hunter2")
log.warning("account_state", error="NO <hunter2@x.example> is over quota; ask hunter2@y.example [x:993]")
try:
    raise ValueError("broken")
except ValueError:
    log.exception("bug", secret="hunter2")
"""


@pytest.mark.fault("G04")
@pytest.mark.parametrize("form", ["json", "console", "auto"])
def test_no_secret_and_no_address_that_a_server_named_is_logged(form: str) -> None:
    done = run(LOGS.format(form=form))
    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert "connected" in done.stderr
    assert "ValueError" in done.stderr
    if form != "console":
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        assert lines[0]["password"] == "***"
        assert lines[1]["error"] == "NO <***> is over quota; ask *** [x:993]"
        assert {"event", "level", "timestamp"} <= lines[0].keys()
