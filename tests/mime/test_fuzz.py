"""The fuzzer works: it ends after so many inputs, and a broken promise ends it with the input in a file."""

from pathlib import Path

import pytest

from tests.mime import fuzz, growth


def test_it_ends_after_so_many_inputs_and_says_what_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "seed.eml").write_bytes(b"Subject: hello\r\n\r\nHello\r\n")
    assert fuzz.main(["--inputs", "15", "--seed", "1", "--corpora", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("15 inputs")
    assert "no promise broken" in shown


def test_a_broken_promise_leaves_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(raw: bytes, _inline_limits: object) -> None:
        raise AssertionError(len(raw))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fuzz, "check", breaks)
    assert fuzz.main(["--inputs", "5"]) == 1
    (left,) = tmp_path.glob("fuzz-*.eml")
    assert left.name in capsys.readouterr().out


def test_growth_says_what_was_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(growth, "JUNK", (b"(", b"<div>"))
    assert growth.main(["1000"]) == 0
    assert f"{2 * len(growth.FRAMES)} kinds of 1000 bytes, 0 of them measurable" in capsys.readouterr().out


def test_growth_fails_where_time_grows_faster_than_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(growth, "JUNK", (b"(",))
    monkeypatch.setattr(growth, "took_s", lambda _frame, _piece, size: (size / 1000) ** 2)
    assert growth.main(["1000"]) == 1
    assert "4.0 times for twice the size, 4.00 s: text of b'('" in capsys.readouterr().out
