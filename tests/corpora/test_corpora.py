"""The table of agreement, on a corpus of two mails written for it."""

import json
from pathlib import Path

import pytest

from tests.corpora.__main__ import main

BOUNCE = b"""From: MAILER-DAEMON@mx.example.org\r
To: sender@example.org\r
Subject: failure notice\r
\r
<nobody@example.net>:\r
Remote host said: 550 5.1.1 no such user\r
"""


def test_what_is_as_expected_and_what_is_not_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "flufl-bounce"
    folder.mkdir()
    (folder / "one.eml").write_bytes(BOUNCE)
    (folder / "two.eml").write_bytes(BOUNCE)
    found = {"detections": [{"temporary": False}]}
    rows = [
        {"file": "one.eml", "expect": {"recipients": ["nobody@example.net"], **found}},
        {"file": "two.eml", "expect": {"recipients": ["else@example.net"], **found}},
    ]
    (folder / "truth.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main([str(tmp_path), "--differences"]) == 0
    shown = capsys.readouterr().out
    rows_shown = [line.split()[:4] for line in shown.splitlines()]
    assert ["kind", "flufl-bounce", "100.0", "%"] in rows_shown
    assert ["recipients", "flufl-bounce", "50.0", "%"] in rows_shown
    assert "flufl-bounce/two.eml: recipients: expected ['else@example.net'], seen ['nobody@example.net']" in shown


def test_no_folder_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
